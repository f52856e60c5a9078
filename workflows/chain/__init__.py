"""Chains: the workflows that follow them and fill in what is behind."""
