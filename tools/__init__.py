"""The roof: the local stack and the command line (`python -m tools`)."""
