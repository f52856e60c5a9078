"""Runs and what they found: written while a run works, read by the API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.ids import new_id
from domain.reconciliation import Finding

_RUN_COLUMNS = """run_id, is_full, status, started_at, finished_at, through_sequence, checked, explained, unexplained,
    share_explained_ppm, areas, failure"""

_RECORD = text(
    """
    INSERT INTO reconciliation_findings AS f (tenant_id, finding_id, area, code, subject, part, asset, expected, actual,
        detail, explanation, first_run_id, last_run_id, last_seen_at)
    SELECT :tenant, n.finding_id, :area, n.code, n.subject, n.part, n.asset, n.expected, n.actual, n.detail,
           n.explanation, :run, :run, clock_timestamp()
    FROM jsonb_to_recordset(CAST(:findings AS jsonb)) AS n (finding_id uuid, code text, subject text, part text,
        asset text, expected numeric, actual numeric, detail text, explanation text)
    ORDER BY n.code, n.subject, n.part
    ON CONFLICT (tenant_id, code, subject, part) WHERE resolved_at IS NULL DO UPDATE
    SET asset = excluded.asset, expected = excluded.expected, actual = excluded.actual, detail = excluded.detail,
        explanation = excluded.explanation, last_run_id = excluded.last_run_id, last_seen_at = excluded.last_seen_at
    """
)

_COUNTS = text(
    """
    SELECT area, count(*) FILTER (WHERE unexplained) AS unexplained,
           count(*) FILTER (WHERE NOT unexplained) AS explained
    FROM (
        SELECT area, subject, bool_or(explanation IS NULL) AS unexplained FROM reconciliation_findings
        WHERE tenant_id = :tenant AND last_run_id = :run GROUP BY area, subject
    ) AS subjects GROUP BY area
    """
)

#: What a run looked at and did not find again is over. A run that read only the new part of the ledger says nothing of
#: its old transactions.
_RESOLVE = text(
    """
    UPDATE reconciliation_findings f SET resolved_at = clock_timestamp()
    FROM reconciliation_runs r
    WHERE r.tenant_id = :tenant AND r.run_id = :run AND f.tenant_id = :tenant AND f.resolved_at IS NULL
      AND f.last_run_id <> :run AND f.last_seen_at < r.recorded_at AND (r.is_full OR f.area <> 'ledger')
    """
)

_TELL = text(
    """
    UPDATE reconciliation_findings SET told_at = clock_timestamp()
    WHERE tenant_id = :tenant AND finding_id IN (
        SELECT finding_id FROM reconciliation_findings
        WHERE tenant_id = :tenant AND last_run_id = :run AND explanation IS NULL AND told_at IS NULL
        ORDER BY finding_id LIMIT :limit
    )
    RETURNING *
    """
)


@dataclass(frozen=True, slots=True)
class Run:
    """One reconciliation of a tenant. ``areas`` has checked, explained and unexplained subjects by area."""

    run_id: UUID
    is_full: bool
    status: str
    started_at: datetime
    finished_at: datetime | None
    through_sequence: int | None
    checked: int
    explained: int
    unexplained: int
    share_explained_ppm: int | None
    areas: dict[str, dict[str, int]]
    failure: str | None


@dataclass(frozen=True, slots=True)
class StandingFinding:
    """A finding as it stands: from the run that saw it first to the one that saw it last."""

    finding_id: UUID
    finding: Finding
    area: str
    first_run_id: UUID
    last_run_id: UUID
    first_seen_at: datetime
    last_seen_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a run that came to its end."""

    checked: int
    explained: int
    unexplained: int
    share_explained_ppm: int
    areas: Mapping[str, Mapping[str, int]]


async def begin_run(connection: AsyncConnection, tenant: UUID, run_id: UUID, *, is_full: bool, at: datetime) -> None:
    """Write a run that begins; runs that were begun long ago and never ended are given up."""
    await connection.execute(
        text(
            "UPDATE reconciliation_runs SET status = 'failed', finished_at = :at, failure = 'its workflow was lost'"
            " WHERE tenant_id = :tenant AND status = 'running'"
            " AND started_at < CAST(:at AS timestamptz) - interval '1 day'"
        ),
        {"tenant": tenant, "at": at},
    )
    await connection.execute(
        text(
            "INSERT INTO reconciliation_runs (tenant_id, run_id, is_full, status, started_at)"
            " VALUES (:tenant, :run, :is_full, 'running', :at)"
        ),
        {"tenant": tenant, "run": run_id, "is_full": is_full, "at": at},
    )


async def record(
    connection: AsyncConnection, tenant: UUID, run_id: UUID, area: str, findings: Sequence[Finding]
) -> None:
    """Write what a run found: a new row, or the one that stands already, with today's figures."""
    if not findings:
        return
    rows = [
        {
            "finding_id": str(new_id()),
            "code": finding.code,
            "subject": finding.subject,
            "part": finding.part,
            "asset": finding.asset,
            "expected": finding.expected,
            "actual": finding.actual,
            "detail": finding.detail,
            "explanation": finding.explanation,
        }
        for finding in findings
    ]
    await connection.execute(_RECORD, {"tenant": tenant, "run": run_id, "area": area, "findings": json.dumps(rows)})


async def count_findings(connection: AsyncConnection, tenant: UUID, run_id: UUID) -> dict[str, tuple[int, int]]:
    """By area, how many subjects the run found to differ: explained, and unexplained."""
    rows = await connection.execute(_COUNTS, {"tenant": tenant, "run": run_id})
    return {row.area: (int(row.explained), int(row.unexplained)) for row in rows}


async def finish_run(
    connection: AsyncConnection,
    tenant: UUID,
    run_id: UUID,
    outcome: Outcome,
    *,
    through_sequence: int | None,
    at: datetime,
) -> None:
    """Write a run's figures, and close the findings that it did not find again."""
    await connection.execute(
        text(
            "UPDATE reconciliation_runs SET status = 'finished', finished_at = :at, through_sequence = :through,"
            " checked = :checked, explained = :explained, unexplained = :unexplained, share_explained_ppm = :share,"
            " areas = CAST(:areas AS jsonb) WHERE tenant_id = :tenant AND run_id = :run"
        ),
        {
            "tenant": tenant,
            "run": run_id,
            "at": at,
            "through": through_sequence,
            "checked": outcome.checked,
            "explained": outcome.explained,
            "unexplained": outcome.unexplained,
            "share": outcome.share_explained_ppm,
            "areas": json.dumps(outcome.areas),
        },
    )
    await connection.execute(_RESOLVE, {"tenant": tenant, "run": run_id})


async def fail_run(connection: AsyncConnection, tenant: UUID, run_id: UUID, failure: str, *, at: datetime) -> None:
    """Write that a run did not come to its end; one that did is left as it is."""
    await connection.execute(
        text(
            "UPDATE reconciliation_runs SET status = 'failed', finished_at = :at, failure = :failure"
            " WHERE tenant_id = :tenant AND run_id = :run AND status = 'running'"
        ),
        {"tenant": tenant, "run": run_id, "failure": failure, "at": at},
    )


async def take_untold(connection: AsyncConnection, tenant: UUID, run_id: UUID, *, limit: int) -> list[StandingFinding]:
    """Unexplained findings of a run that no event told of yet, oldest first; they count as told from now on."""
    rows = await connection.execute(_TELL, {"tenant": tenant, "run": run_id, "limit": limit})
    return sorted((_finding(row) for row in rows), key=lambda each: each.finding_id)


async def find_run(connection: AsyncConnection, run_id: UUID) -> Run | None:
    """The run with this id, if the transaction's tenant has it."""
    query = text(f"SELECT {_RUN_COLUMNS} FROM reconciliation_runs WHERE run_id = :run")
    row = (await connection.execute(query, {"run": run_id})).mappings().one_or_none()
    return None if row is None else Run(**row)


async def list_runs(connection: AsyncConnection, *, before: UUID | None, limit: int) -> list[Run]:
    """Up to ``limit`` runs of the transaction's tenant with an id below ``before``, newest first."""
    query = text(
        f"SELECT {_RUN_COLUMNS} FROM reconciliation_runs"
        " WHERE CAST(:before AS uuid) IS NULL OR run_id < :before ORDER BY run_id DESC LIMIT :limit"
    )
    rows = await connection.execute(query, {"before": before, "limit": limit})
    return [Run(**row) for row in rows.mappings()]


async def list_findings(
    connection: AsyncConnection, run_id: UUID, *, before: UUID | None, limit: int
) -> list[StandingFinding]:
    """Up to ``limit`` findings that stood when a run was made, with an id below ``before``, newest first."""
    query = text(
        "SELECT * FROM reconciliation_findings WHERE first_run_id <= :run AND last_run_id >= :run"
        " AND (CAST(:before AS uuid) IS NULL OR finding_id < :before) ORDER BY finding_id DESC LIMIT :limit"
    )
    rows = await connection.execute(query, {"run": run_id, "before": before, "limit": limit})
    return [_finding(row) for row in rows]


async def scales(connection: AsyncConnection) -> dict[str, int]:
    """The scale of every asset, by symbol."""
    return {row.symbol: row.scale for row in await connection.execute(text("SELECT symbol, scale FROM assets"))}


async def list_tenants(connection: AsyncConnection, *, after: UUID | None, limit: int) -> list[UUID]:
    """Up to ``limit`` tenants with an id above ``after`` that have accounts; as the role that sees every tenant."""
    query = text(
        "SELECT t.tenant_id FROM tenants t WHERE (CAST(:after AS uuid) IS NULL OR t.tenant_id > :after)"
        " AND EXISTS (SELECT FROM accounts a WHERE a.tenant_id = t.tenant_id) ORDER BY t.tenant_id LIMIT :limit"
    )
    return list((await connection.execute(query, {"after": after, "limit": limit})).scalars())


def _finding(row: Any) -> StandingFinding:
    return StandingFinding(
        finding_id=row.finding_id,
        finding=Finding(
            code=row.code,
            subject=row.subject,
            detail=row.detail,
            part=row.part,
            asset=row.asset,
            expected=None if row.expected is None else int(row.expected),
            actual=None if row.actual is None else int(row.actual),
            explanation=row.explanation,
        ),
        area=row.area,
        first_run_id=row.first_run_id,
        last_run_id=row.last_run_id,
        first_seen_at=row.recorded_at,
        last_seen_at=row.last_seen_at,
        resolved_at=row.resolved_at,
    )
