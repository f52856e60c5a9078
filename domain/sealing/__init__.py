"""Seals over what was written: hash trees, the bytes that are hashed, and signed checkpoints. Pure arithmetic."""
