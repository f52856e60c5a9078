"""The life of what is followed on chains."""
