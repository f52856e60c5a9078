"""Margin accounts with their positions, snapshots of health, events, and what assets count for."""
