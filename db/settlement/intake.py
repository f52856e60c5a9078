"""Taking settlement commands: rows, one event and one audit record in one commit, and the same answer for a repeat."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.audit import Origin
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC
from domain.ids import settlement_workflow_id
from domain.settlement import ESCROW_KINDS, Command

#: Of two lists that share ids in different orders, each could wait for the other: one list at a time, in a tenant. A
#: single command never waits while it holds what others wait for.
_ONE_LIST = text("SELECT pg_advisory_xact_lock(hashtextextended('settlement-intake:' || CAST(:tenant AS text), 0))")

_TAKE = text(
    """
    WITH made AS (
        INSERT INTO settlement_commands (tenant_id, command_id, workflow_id, kind, account_ref, counterparty_ref,
            asset_symbol, amount_numeric, amount_minor, escrow_id, milestones, description, fingerprint, actor_user,
            actor_key_id, request_id, transaction_id)
        SELECT :tenant, command_id, :workflow_id, kind, account_ref, counterparty_ref, asset_symbol,
               CAST(amount_numeric AS numeric), CAST(amount_minor AS numeric), escrow_id,
               CAST(milestones AS smallint[]), description, fingerprint, :actor_user, :actor_key_id, :request_id,
               transaction_id
        FROM unnest(CAST(:ids AS text[]), CAST(:kinds AS text[]), CAST(:accounts AS text[]),
                    CAST(:counterparties AS text[]), CAST(:assets AS text[]), CAST(:decimals AS text[]),
                    CAST(:minors AS text[]), CAST(:escrows AS uuid[]), CAST(:milestones AS text[]),
                    CAST(:descriptions AS text[]), CAST(:fingerprints AS bytea[]), CAST(:transactions AS uuid[]))
            WITH ORDINALITY AS c (command_id, kind, account_ref, counterparty_ref, asset_symbol, amount_numeric,
                amount_minor, escrow_id, milestones, description, fingerprint, transaction_id, n)
        ORDER BY n
        ON CONFLICT (tenant_id, command_id) DO NOTHING
        RETURNING command_id, sequence, received_at
    ), news AS (
        SELECT jsonb_build_object('count', count(*), 'first_sequence', min(sequence), 'last_sequence', max(sequence))
            AS facts FROM made HAVING count(*) > 0
    ), audit AS (
        INSERT INTO audit_log (tenant_id, subject, action, actor_user, actor_key_id, request_id, workflow_id, at,
            details)
        SELECT :tenant, :workflow_id, 'commands.received', :actor_user, :actor_key_id, :request_id, :workflow_id, :at,
               facts FROM news
    ), event AS (
        INSERT INTO outbox (tenant_id, event_id, topic, type, subject, occurred_at, data)
        SELECT :tenant, :event_id, :topic, 'commands.received', :workflow_id, :at, facts FROM news
    )
    SELECT command_id, received_at FROM made
    """
)

_STANDING = text(
    "SELECT command_id, fingerprint, received_at FROM settlement_commands"
    " WHERE tenant_id = :tenant AND command_id = ANY (:ids)"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that was found good, with its decimal as it was sent."""

    command: Command
    amount_numeric: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What is recorded under a command's id, and whether this request recorded it."""

    fingerprint: bytes
    received_at: datetime
    fresh: bool


async def take(
    connection: AsyncConnection, tenant: UUID, asked: Sequence[Asked], origin: Origin, at: datetime
) -> Mapping[str, Taken]:
    """Record commands that are not there yet, in the order given; answers what stands under each id.

    Ids in ``asked`` are distinct. What was there already is left as it is: whether it says the same is the caller's to
    tell, by its fingerprint. What is new leaves one ``commands.received`` event and one audit record for all.
    """
    if len(asked) > 1:
        await connection.execute(_ONE_LIST, {"tenant": str(tenant)})
    fingerprints = {one.command.command_id: one.command.fingerprint() for one in asked}
    rows = await connection.execute(_TAKE, _columns(asked, fingerprints) | _common(tenant, origin, at))
    taken = {row.command_id: Taken(fingerprints[row.command_id], row.received_at, fresh=True) for row in rows}
    if len(taken) < len(asked):
        missing = [command_id for command_id in fingerprints if command_id not in taken]
        found = await connection.execute(_STANDING, {"tenant": tenant, "ids": missing})
        taken |= {row.command_id: Taken(bytes(row.fingerprint), row.received_at, fresh=False) for row in found}
    return taken


def _common(tenant: UUID, origin: Origin, at: datetime) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "workflow_id": settlement_workflow_id(tenant),
        "actor_user": origin.user_id,
        "actor_key_id": origin.key_id,
        "request_id": origin.request_id,
        "at": at,
        "event_id": new_id(),
        "topic": SETTLEMENT_TOPIC,
    }


def _columns(asked: Sequence[Asked], fingerprints: Mapping[str, bytes]) -> dict[str, list[Any]]:
    commands = [one.command for one in asked]
    return {
        "ids": [command.command_id for command in commands],
        "kinds": [command.kind.value for command in commands],
        "accounts": [command.account_ref for command in commands],
        "counterparties": [command.counterparty_ref for command in commands],
        "assets": [command.asset_symbol for command in commands],
        "decimals": [one.amount_numeric for one in asked],
        "minors": [str(command.amount_minor) for command in commands],
        "escrows": [command.escrow_id for command in commands],
        "milestones": [_array(command.milestones) for command in commands],
        "descriptions": [command.description for command in commands],
        "fingerprints": [fingerprints[command.command_id] for command in commands],
        # An escrow's step chooses the id of what it books.
        "transactions": [None if command.kind in ESCROW_KINDS else new_id() for command in commands],
    }


def _array(positions: tuple[int, ...] | None) -> str | None:
    """A list within a list of columns travels as text: unnest() would flatten it."""
    return None if positions is None else "{" + json.dumps(list(positions))[1:-1] + "}"
