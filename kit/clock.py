"""The clock, for the rooms that may read one (not ``domain``, not ``workflows``)."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The current instant, aware, in UTC."""
    return datetime.now(UTC)
