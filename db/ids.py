"""Fresh identifiers for rows."""

from __future__ import annotations

import os
from uuid import UUID

from domain.ids import uuid7
from kit.clock import now


def new_id() -> UUID:
    """A fresh UUIDv7: unique, and sortable by the millisecond in which it was made."""
    return uuid7(now(), os.urandom(10))
