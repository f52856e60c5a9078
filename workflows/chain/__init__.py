"""The life of a followed chain."""
