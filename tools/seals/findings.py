"""What a check can find."""

from __future__ import annotations


class Finding(Exception):
    """The first thing that is not as it was sealed or signed: where it is, and what happened to it."""
