"""What travels between ``BookWorkflow`` and its steps."""

from __future__ import annotations

from datetime import datetime

from activities.messages import Message


class BookRun(Message):
    """A run of the book; ``rounds`` counts those of the runs before it."""

    rounds: int = 0


class BookPlan(Message):
    """How the book is divided, and what it is to be revalued at: at least this tick and version of parameters."""

    groups: tuple[tuple[int, ...], ...]
    tick: int
    version: int


class RevalueGroup(Message):
    """Some shards, at the newest prices that there are."""

    shards: tuple[int, ...]


class Revalued(Message):
    """What came of some shards. ``superseded``: a newer tick had begun, so what was left was left to it. ``due_at`` is
    when the first account may be told what a cooldown holds back. ``unvalued`` accounts were not revalued: they have an
    asset that no longer counts, or that has no usable price."""

    tick: int
    version: int
    accounts: int = 0
    candidates: int = 0
    transitions: int = 0
    left: int = 0
    waiting: int = 0
    due_at: datetime | None = None
    superseded: bool = False
    milliseconds: int = 0
    unvalued: int = 0


class BookAudit(Message):
    """What one look of the auditor came to."""

    accounts: int = 0
    disagreeing: int = 0


class AuditProgress(Message):
    """How far a look of the auditor is: the last account of the page before, and what was found."""

    after: int = 0
    accounts: int = 0
    disagreeing: int = 0
