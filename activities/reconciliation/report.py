"""What a run leaves behind: its figures, its audit records and its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from activities.reconciliation.messages import AreaCompared, FinishReconciliation, ReconciliationPlan
from db.audit import AuditRecord, Origin
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.reconciliation.runs import Outcome, StandingFinding
from domain.money import format_minor
from domain.reconciliation import share_explained_ppm, share_text


def outcome_of(compared: Sequence[AreaCompared], found: Mapping[str, tuple[int, int]]) -> Outcome:
    """The figures of a run; ``found`` has explained and unexplained subjects by area."""
    areas = {}
    for each in compared:
        explained, unexplained = found.get(each.area, (0, 0))
        areas[each.area] = {"checked": each.checked, "explained": explained, "unexplained": unexplained}
    checked, explained, unexplained = (
        sum(area[name] for area in areas.values()) for name in ("checked", "explained", "unexplained")
    )
    return Outcome(checked, explained, unexplained, share_explained_ppm(checked, unexplained), areas)


def started_audit(run_id: UUID, plan: ReconciliationPlan, at: datetime, origin: Origin) -> AuditRecord:
    """That a run began, and what for."""
    details = {"full": plan.full, "areas": list(plan.areas), "after_sequence": plan.after_sequence}
    return AuditRecord(_subject(run_id), "ledger.reconciliation_started", at, origin, details)


def finished_audit(asked: FinishReconciliation, outcome: Outcome, origin: Origin) -> AuditRecord:
    """That a run ended, and how."""
    action = "ledger.reconciled" if asked.failure is None else "ledger.reconciliation_failed"
    return AuditRecord(_subject(asked.request.run_id), action, asked.at, origin, _facts(asked, outcome))


def finished_events(
    asked: FinishReconciliation, outcome: Outcome, untold: Sequence[StandingFinding], scales: Mapping[str, int]
) -> list[OutboxEvent]:
    """One event with the figures, and one for each difference that is new and unexplained; none of a failed run."""
    if asked.failure is not None:
        return []
    run_id, at = asked.request.run_id, asked.at
    reconciled = OutboxEvent(
        new_id(), SETTLEMENT_TOPIC, "ledger.reconciled", _subject(run_id), at, _facts(asked, outcome)
    )
    return [reconciled, *(_difference(each, run_id, at, scales) for each in untold)]


def _difference(found: StandingFinding, run_id: UUID, at: datetime, scales: Mapping[str, int]) -> OutboxEvent:
    finding = found.finding
    data = {
        "finding_id": str(found.finding_id),
        "run_id": str(run_id),
        "code": finding.code,
        "subject": finding.subject,
        "part": finding.part,
        "asset": finding.asset,
        "expected": amount_text(finding.expected, finding.asset, scales),
        "actual": amount_text(finding.actual, finding.asset, scales),
        "detail": finding.detail,
    }
    return OutboxEvent(new_id(), SETTLEMENT_TOPIC, "ledger.difference_found", finding.subject, at, data)


def amount_text(amount: int | None, asset: str | None, scales: Mapping[str, int]) -> str | None:
    """A finding's figure as text: decimal in its asset, or a plain count."""
    return None if amount is None else format_minor(amount, scales.get(asset or "", 0))


def _facts(asked: FinishReconciliation, outcome: Outcome) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "run_id": str(asked.request.run_id),
        "full": asked.plan.full,
        "checked": outcome.checked,
        "explained": outcome.explained,
        "unexplained": outcome.unexplained,
        "share_explained": share_text(outcome.share_explained_ppm),
        "areas": outcome.areas,
    }
    return facts if asked.failure is None else facts | {"failure": asked.failure}


def _subject(run_id: UUID) -> str:
    return f"reconciliation:{run_id}"
