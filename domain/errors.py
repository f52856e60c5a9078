"""The three families of error. Everything else that is raised is a bug.

    HoldfastError
    ├── Refusal       a rule said no: final, never retried, told to the caller with a stable code
    └── Unavailable   the world said not now: retried with a limit, then surfaced

Which HTTP status a refusal becomes is decided in ``api/problems.py`` alone.
"""

from __future__ import annotations


class HoldfastError(Exception):
    """Base of every error that Holdfast raises on purpose."""


class Refusal(HoldfastError):
    """A rule said no.

    ``code`` is stable and machine-readable (``milestone_not_funded``); clients branch on it, never on ``message``.
    ``field`` names the input at fault as a dotted path (``milestones.0.amount``), where there is one.
    """

    def __init__(self, code: str, message: str, *, field: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.field = field


class Unavailable(HoldfastError):
    """Something that we depend on does not answer; ``what`` names it (``postgres``, ``temporal``)."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(f"{what} is unavailable: {message}")
        self.what = what
        self.message = message
