"""Chains: what is followed, what was seen there, how far, and by whom."""
