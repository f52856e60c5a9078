"""Checking what is sealed, without the processes that wrote it."""
