"""The rules. Pure: no clock, no randomness, no input or output."""
