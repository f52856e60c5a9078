"""What operators are told of chains and backfills: which event is which alert, how urgent it is, and its facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from domain.alerts.model import AlertType, Severity

#: Events, as what operators are told of them, how urgently, and which fields of their data are the alert's facts.
_TOLD: Final[Mapping[str, tuple[AlertType, Severity, Mapping[str, str]]]] = {
    "chain.relayer_halted": (
        AlertType.RELAYER_HALTED,
        Severity.CRITICAL,
        {"relayer": "relayer_id", "reason": "reason"},
    ),
    "chain.provider_accused": (
        AlertType.PROVIDER_ACCUSED,
        Severity.MEDIUM,
        {"chain": "chain", "provider": "provider", "reason": "reason"},
    ),
    "chain.event_disagreed": (
        AlertType.EVENT_DISAGREED,
        Severity.HIGH,
        {"relayer": "relayer_id", "event": "kind", "onchain_id": "subject", "reason": "reason"},
    ),
    "chain.books_differ": (
        AlertType.BOOKS_DIFFER,
        Severity.CRITICAL,
        {
            "relayer": "relayer_id",
            "token": "token",
            "block": "block_number",
            "unexplained": "unexplained",
            "reason": "detail",
        },
    ),
    "backfill.failed": (
        AlertType.BACKFILL_FAILED,
        Severity.MEDIUM,
        {"job": "job_id", "name": "name", "from_block": "from_block", "to_block": "to_block", "reason": "error"},
    ),
}

#: Which events these are, and as what they are told.
OPERATIONS: Final[Mapping[str, AlertType]] = {event: told for event, (told, _, _) in _TOLD.items()}


def told_of(event_type: str, data: Mapping[str, Any]) -> tuple[Severity, dict[str, Any]]:
    """How urgent an event is, and the facts of its alert. Raises ``KeyError`` for one that lacks a field."""
    _, severity, named = _TOLD[event_type]
    return severity, {fact: data[name] for fact, name in named.items() if data[name] is not None}
