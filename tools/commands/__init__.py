"""One module per command of `python -m tools`: `arguments` declares what it takes, `run` does it."""
