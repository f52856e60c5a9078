"""The doors: HTTP in, workflows and rows behind."""
