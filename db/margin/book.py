"""What the book writes: how far each shard is, and what its accounts were told, a batch of them in one transaction.

``margin_book`` fences: a batch names the tick that it was decided at and locks its shards' rows, so a straggler of an
older tick finds them taken by a newer one and writes nothing. An account that changed since it was read keeps its row:
its version tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from db.columns import METADATA, instant
from db.engine import copy_in
from db.margin.tables import margin_events, margin_health_snapshots
from db.outbox import outbox
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

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)

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
#: Lists come as text, which is read faster than it is sent in binary. The account that is moved is the one that the
#: snapshot names: its key is looked up by nobody else.
_MOVE = text(
    """
    WITH moved AS (
        UPDATE margin_accounts a SET told_level = i.told, warning_told_at = i.warning, margin_call_told_at = i.call,
            imminent_told_at = i.imminent, liquidation_told_at = i.liquidation,
            health_score = i.health * 0.000000000000000001, checked_at = :at
        FROM unnest(CAST(CAST(:accounts AS text) AS bigint[]), CAST(CAST(:versions AS text) AS bigint[]),
            CAST(CAST(:told AS text) AS smallint[]), CAST(CAST(:warning AS text) AS timestamptz[]),
            CAST(CAST(:call AS text) AS timestamptz[]), CAST(CAST(:imminent AS text) AS timestamptz[]),
            CAST(CAST(:liquidation AS text) AS timestamptz[]), CAST(CAST(:health AS text) AS numeric[]))
            AS i (account_no, version, told, warning, call, imminent, liquidation, health)
        WHERE a.account_no = i.account_no AND a.version = i.version
        RETURNING a.account_no
    )
    SELECT array_agg(account_no) FROM moved
    """
)

#: The fields of a telling's lines, in their order.
SNAPSHOT: Final = SnapshotRow._fields
EVENT: Final = EventRow._fields
OUTBOX: Final = ("tenant_id", "event_id", "topic", "type", "subject", "occurred_at", "data")

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
    """What an account is told, in the place of what it was told at ``version``. ``told_at`` is by level, 1 to 4, in
    microseconds since 2000; ``health`` in 1e-18."""

    account: int
    version: int
    told: int
    told_at: tuple[int | None, ...]
    health: int | None


class Telling(NamedTuple):
    """Everything that one account's transition writes; the rows of snapshot, event and outbox are lines of COPY."""

    move: Move
    tenant: UUID
    type: str
    snapshot: str
    event: str
    outbox: str


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
    at: datetime,
    workflow_id: str | None,
    details: dict[UUID, str],
) -> set[int]:
    """Write transitions, and answer whose: accounts that changed since they were read are left out, to be read again.

    ``details`` is what each tenant's audit record says, as JSON. Raises ``Superseded`` and then writes nothing.
    """
    if await connection.scalar(_FENCE, _fenced(fence)) != len(fence.shards):
        raise Superseded(f"tick {fence.tick}")
    moved = set(await connection.scalar(_MOVE, {"at": at} | _moves([each.move for each in tellings])) or ())
    kept = tellings if len(moved) == len(tellings) else [each for each in tellings if each.move.account in moved]
    if kept:
        await copy_in(connection, margin_health_snapshots.name, SNAPSHOT, [each.snapshot for each in kept])
        await copy_in(connection, margin_events.name, EVENT, [each.event for each in kept])
        await copy_in(connection, outbox.name, OUTBOX, [each.outbox for each in kept])
        theirs = dict.fromkeys(each.tenant for each in kept)
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


def _moves(moves: Sequence[Move]) -> dict[str, str]:
    """Moves as one list per column, as text."""
    accounts, versions, told, told_at, health = zip(*moves, strict=True)
    warning, call, imminent, liquidation = zip(*told_at, strict=True)
    # Most were told at the same few instants.
    words: dict[int | None, str] = {None: "NULL"}
    for at in {at for each in set(told_at) for at in each if at is not None}:
        words[at] = f'"{_EPOCH + timedelta(microseconds=at)}"'
    instants = {"warning": warning, "call": call, "imminent": imminent, "liquidation": liquidation}
    lists = {"accounts": accounts, "versions": versions, "told": told}
    return (
        {name: f"{{{','.join(map(str, values))}}}" for name, values in lists.items()}
        | {name: f"{{{','.join([words[at] for at in values])}}}" for name, values in instants.items()}
        | {"health": f"{{{','.join(['NULL' if each is None else str(each) for each in health])}}}"}
    )
