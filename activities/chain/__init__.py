"""The steps of following chains: reading, committing, settling, filling in."""
