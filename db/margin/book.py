"""What the book writes: how far each shard is, and what its accounts were told, a batch of them in one transaction.

``margin_book`` fences: a batch names the tick that it was decided at and locks its shards' rows, so a straggler of an
older tick finds them taken by a newer one and writes nothing. An account that changed since it was read keeps its row:
its version tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    TextClause,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from db.columns import METADATA, instant
from db.margin.tables import margin_events, margin_health_snapshots
from domain.margin.rows import EventRow, SnapshotRow

margin_book = Table(
    "margin_book",
    METADATA,
    Column("shard", SmallInteger, nullable=False),
    Column("tick", BigInteger, nullable=False, comment="the newest tick that was begun; older ones write no more"),
    instant("parameters_from", comment="when the parameters that it was begun with took effect"),
    Column("done_tick", BigInteger, nullable=False, comment="the newest tick at which every account was looked at"),
    instant("done_parameters_from"),
    instant("due_at", nullable=True, comment="when the first account may be told what a cooldown holds back"),
    instant("revalued_at", nullable=True, comment="when the last revaluation ended"),
    PrimaryKeyConstraint("shard"),
)

_BEGIN = text(
    "UPDATE margin_book SET tick = :tick, parameters_from = :since WHERE shard = ANY (CAST(:shards AS smallint[]))"
    " AND (tick, parameters_from) <= (:tick, :since)"
)
_FENCE = text(
    "SELECT count(*) FROM (SELECT FROM margin_book WHERE shard = ANY (CAST(:shards AS smallint[]))"
    " AND tick = :tick AND parameters_from = :since FOR SHARE) AS ours"
)
_FINISH = text(
    "UPDATE margin_book SET done_tick = :tick, done_parameters_from = :since, due_at = :due_at,"
    " revalued_at = clock_timestamp() WHERE shard = ANY (CAST(:shards AS smallint[]))"
    " AND tick = :tick AND parameters_from = :since"
)
_MOVE = text(
    """
    UPDATE margin_accounts a SET told_level = i.told, warning_told_at = i.warning, margin_call_told_at = i.call,
        imminent_told_at = i.imminent, liquidation_told_at = i.liquidation,
        health_score = CAST(i.health AS numeric), checked_at = :at
    FROM unnest(CAST(:accounts AS bigint[]), CAST(:versions AS bigint[]), CAST(:told AS smallint[]),
        CAST(:warning AS timestamptz[]), CAST(:call AS timestamptz[]), CAST(:imminent AS timestamptz[]),
        CAST(:liquidation AS timestamptz[]), CAST(:health AS text[]))
        AS i (account_no, version, told, warning, call, imminent, liquidation, health)
    WHERE a.account_no = i.account_no AND a.version = i.version
    RETURNING a.account_no
    """
)


_DIALECT: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]


def _insertion(table: Table, fields: Sequence[str]) -> TextClause:
    """Insert rows that come as one list per column, ``c0`` and so on; numbers and JSON come as text."""
    kinds = [_kind(table.c[field]) for field in fields]
    given = ", ".join(
        f"CAST(:c{number} AS {'text' if as_text else kind}[])" for number, (kind, as_text) in enumerate(kinds)
    )
    taken = ", ".join(
        f"CAST(r.{field} AS {kind})" if as_text else f"r.{field}"
        for field, (kind, as_text) in zip(fields, kinds, strict=True)
    )
    names = ", ".join(fields)
    return text(f"INSERT INTO {table.name} ({names}) SELECT {taken} FROM unnest({given}) AS r ({names})")


def _kind(column: Column[Any]) -> tuple[str, bool]:
    """A column's type, and whether its values come as text."""
    kind = column.type.compile(dialect=_DIALECT)
    return kind, kind == "JSONB" or kind.startswith("NUMERIC")


_SNAPSHOTS = _insertion(margin_health_snapshots, SnapshotRow._fields)
_EVENTS = _insertion(margin_events, EventRow._fields)
_OUTBOX = text(
    """
    INSERT INTO outbox (tenant_id, event_id, topic, type, subject, occurred_at, data)
    SELECT o.tenant_id, o.event_id, :topic, o.type, o.subject, :at, CAST(o.data AS jsonb)
    FROM unnest(CAST(:tenants AS uuid[]), CAST(:events AS uuid[]), CAST(:types AS text[]), CAST(:subjects AS text[]),
        CAST(:data AS text[])) AS o (tenant_id, event_id, type, subject, data)
    """
)
_AUDIT = text(
    """
    INSERT INTO audit_log (tenant_id, subject, action, workflow_id, at, details)
    SELECT a.tenant_id, 'margin:book', 'margin.revalued', :workflow_id, :at, CAST(a.details AS jsonb)
    FROM unnest(CAST(:tenants AS uuid[]), CAST(:details AS text[])) AS a (tenant_id, details)
    """
)
_TICKED_AT = text("SELECT recorded_at FROM price_ticks WHERE tick = :tick")
_BEHIND = text(
    """
    SELECT EXISTS (
        SELECT FROM margin_book b WHERE b.done_parameters_from < :since
            OR b.due_at < clock_timestamp() - CAST(:margin AS interval)
            OR EXISTS (
                SELECT FROM price_ticks t WHERE t.tick > b.done_tick AND t.tick <= :tick
                    AND t.recorded_at < clock_timestamp() - CAST(:margin AS interval)
            )
    )
    """
)


class Superseded(Exception):
    """A newer tick was begun for these shards: what was decided at an older one is not written."""


@dataclass(frozen=True, slots=True)
class Fence:
    """What a batch says that it was decided at, and for which shards; ``since``: parameters in force from then on."""

    shards: Sequence[int]
    tick: int
    since: datetime


class Move(NamedTuple):
    """What an account is told, in the place of what it was told at ``version``. ``told_at`` is by level, 1 to 4."""

    account: int
    version: int
    told: int
    told_at: tuple[datetime | None, ...]
    health: str | None


class Telling(NamedTuple):
    """Everything that one account's transition writes; ``data`` is the event's in the feed, as JSON."""

    move: Move
    snapshot: SnapshotRow
    event: EventRow
    type: str
    subject: str
    data: str


async def begin(connection: AsyncConnection, fence: Fence) -> None:
    """Take the shards for a tick; raises ``Superseded`` when a newer one has them. The same tick may begin again."""
    done = await connection.execute(_BEGIN, _fenced(fence))
    if getattr(done, "rowcount", 0) != len(fence.shards):
        raise Superseded(f"tick {fence.tick}")


async def write(
    connection: AsyncConnection,
    fence: Fence,
    tellings: Sequence[Telling],
    *,
    topic: str,
    at: datetime,
    workflow_id: str | None,
    details: dict[UUID, str],
) -> set[int]:
    """Write transitions, and answer whose: accounts that changed since they were read are left out, to be read again.

    ``details`` is what each tenant's audit record says, as JSON. Raises ``Superseded`` and then writes nothing.
    """
    if await connection.scalar(_FENCE, _fenced(fence)) != len(fence.shards):
        raise Superseded(f"tick {fence.tick}")
    accounts, versions, told, told_at, health = zip(*(telling.move for telling in tellings), strict=True)
    warning, call, imminent, liquidation = zip(*told_at, strict=True)
    asked = {
        "accounts": accounts,
        "versions": versions,
        "told": told,
        "warning": warning,
        "call": call,
        "imminent": imminent,
        "liquidation": liquidation,
        "health": health,
    }
    moved = set((await connection.execute(_MOVE, {"at": at} | _lists(asked))).scalars())
    kept = tellings if len(moved) == len(tellings) else [each for each in tellings if each.move.account in moved]
    if kept:
        await connection.execute(_SNAPSHOTS, _columns([each.snapshot for each in kept]))
        await connection.execute(_EVENTS, _columns([each.event for each in kept]))
        sent = {
            "tenants": [each.event.tenant_id for each in kept],
            "events": [each.event.event_id for each in kept],
            "types": [each.type for each in kept],
            "subjects": [each.subject for each in kept],
            "data": [each.data for each in kept],
        }
        await connection.execute(_OUTBOX, {"topic": topic, "at": at} | sent)
        theirs = dict.fromkeys(each.event.tenant_id for each in kept)
        told_to = {"tenants": list(theirs), "details": [details[tenant] for tenant in theirs]}
        await connection.execute(_AUDIT, {"workflow_id": workflow_id, "at": at} | told_to)
    return moved


async def finish(connection: AsyncConnection, fence: Fence, due_at: datetime | None) -> None:
    """Every account of the shards was looked at; ``due_at`` is when the first of those that wait may be told."""
    await connection.execute(_FINISH, _fenced(fence) | {"due_at": due_at})


async def ticked_at(connection: AsyncConnection, tick: int) -> datetime | None:
    """When a tick was recorded."""
    found: datetime | None = await connection.scalar(_TICKED_AT, {"tick": tick})
    return found


async def is_behind(connection: AsyncConnection, *, tick: int, since: datetime, margin: timedelta) -> bool:
    """Whether some shard was not revalued at a tick or at a cooldown's end, for ``margin``, or with parameters in force
    ``since`` then."""
    return bool(await connection.scalar(_BEHIND, {"tick": tick, "since": since, "margin": margin}))


def _fenced(fence: Fence) -> dict[str, Any]:
    return {"shards": list(fence.shards), "tick": fence.tick, "since": fence.since}


def _lists(columns: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in columns.items()}


def _columns(rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """Rows as one list per column, in their order."""
    return {f"c{number}": list(column) for number, column in enumerate(zip(*rows, strict=True))}
