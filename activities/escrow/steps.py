"""The two steps of an escrow: record it, and carry a command out. Each is one commit."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.escrow.messages import ApplyCommand, FollowedMessage, RecordOpening, asker, to_command
from activities.escrow.money import check_not_frozen, post
from activities.escrow.snapshot import EscrowSnapshot
from db import escrow as escrows
from db import ledger
from db.audit import AuditRecord
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import Step, step
from domain.errors import Refusal
from domain.escrow import Decision, Escrow, Event, Terms, decide, open_escrow
from domain.ids import escrow_step_id, escrow_workflow_id
from domain.money import format_minor


class EscrowActivities:
    """Steps on one escrow. ``engine`` acts as the tenants' role; ``doorbell`` wakes the relay."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell) -> None:
        self._engine = engine
        self._doorbell = doorbell

    @activity.defn(name="escrow.open")
    async def open(self, request: RecordOpening) -> EscrowSnapshot:
        """Record a new escrow and answer what is recorded; one that is recorded already is loaded.

        Refuses what ``domain.escrow.open_escrow`` refuses, ``asset_unknown``, ``reference_taken``, ``tenant_frozen``,
        and ``escrow_unknown`` for a resumption of what was never recorded.
        """
        opening = request.opening
        if opening.terms is None:
            async with tenant_transaction(self._engine, opening.tenant_id) as connection:
                recorded = await escrows.find(connection, opening.escrow_id)
            if recorded is None:
                raise Refusal("escrow_unknown", f"there is no escrow {opening.escrow_id}")
            return EscrowSnapshot.of(recorded)
        step_id = escrow_step_id(opening.escrow_id, "open")
        async with step(self._engine, self._doorbell, tenant_id=opening.tenant_id, step_id=step_id) as opened:
            if opened.receipt is None:
                if opening.followed is None:
                    await check_not_frozen(opened)
                at = request.at if opening.followed is None else opening.followed.at
                asset = await ledger.get_asset(opened.connection, opening.terms.asset)
                terms = opening.terms.to_terms(asset, tuple(new_id() for _ in opening.terms.milestones))
                decision = open_escrow(opening.escrow_id, terms, at)
                await escrows.insert(
                    opened.connection, opening.tenant_id, decision.escrow, opening.terms.content_hash()
                )
                origin = opening.origin.to_origin(escrow_workflow_id(opening.escrow_id))
                facts = _terms_facts(terms) | _chain_facts(opening.followed)
                audit = AuditRecord(_subject(decision.escrow), "escrow.open", at, origin, facts)
                await opened.finish(
                    result={"version": decision.escrow.version},
                    audit=audit,
                    events=_events(decision, {}, opening.followed),
                )
                return EscrowSnapshot.of(decision.escrow)
            return EscrowSnapshot.of(await _get(opened, opening.escrow_id))

    @activity.defn(name="escrow.apply")
    async def apply(self, request: ApplyCommand) -> EscrowSnapshot:
        """Carry one command out on what is recorded, and answer where the escrow stands.

        The rule that the workflow asked decides again here, on the locked row: what it refuses is not written.
        """
        async with step(
            self._engine,
            self._doorbell,
            tenant_id=request.tenant_id,
            step_id=escrow_step_id(request.escrow_id, request.step),
        ) as opened:
            if opened.receipt is not None:
                return EscrowSnapshot.of(await _get(opened, request.escrow_id))
            before = await escrows.lock(opened.connection, request.escrow_id)
            if before is None:
                raise Refusal("escrow_unknown", f"there is no escrow {request.escrow_id}")
            decision = decide(
                before,
                to_command(request.command),
                user_id=asker(request.command, request.origin, followed=request.followed),
                at=request.at,
                followed=request.followed is not None,
            )
            transactions = await post(opened, request, decision)
            await escrows.update(opened.connection, request.tenant_id, before, decision.escrow)
            await opened.finish(
                result={"version": decision.escrow.version, "transactions": transactions},
                audit=_audit(request, before, decision, transactions),
                events=_events(decision, transactions, request.followed),
            )
            return EscrowSnapshot.of(decision.escrow)


async def _get(opened: Step, escrow_id: UUID) -> Escrow:
    found = await escrows.find(opened.connection, escrow_id)
    if found is None:
        raise RuntimeError(f"escrow {escrow_id} has a receipt but no row")
    return found


def _audit(request: ApplyCommand, before: Escrow, decision: Decision, transactions: dict[str, str]) -> AuditRecord:
    details: dict[str, Any] = {
        "command": request.command.model_dump(mode="json", exclude_none=True),
        "status": {"before": before.status, "after": decision.escrow.status},
        "version": decision.escrow.version,
        "events": [{"type": event.type} | _event_facts(decision.escrow, event) for event in decision.events],
        "transactions": transactions,
    } | _chain_facts(request.followed)
    origin = request.origin.to_origin(escrow_workflow_id(request.escrow_id))
    return AuditRecord(_subject(before), f"escrow.{request.command.kind}", request.at, origin, details)


def _events(decision: Decision, transactions: dict[str, str], followed: FollowedMessage | None) -> list[OutboxEvent]:
    escrow = decision.escrow
    common: dict[str, Any] = {
        "escrow_id": str(escrow.escrow_id),
        "reference": escrow.terms.reference,
        "status": escrow.status,
        "version": escrow.version,
        "asset": escrow.terms.asset.symbol,
        "buyer": escrow.terms.buyer.user_id,
        "seller": escrow.terms.seller.user_id,
        "transactions": transactions,
    } | _chain_facts(followed)
    return [
        OutboxEvent(
            event_id=new_id(),
            topic=SETTLEMENT_TOPIC,
            type=event.type,
            subject=_subject(escrow),
            occurred_at=escrow.updated_at,
            data=common | _event_facts(escrow, event),
        )
        for event in decision.events
    ]


def _event_facts(escrow: Escrow, event: Event) -> dict[str, Any]:
    amount = None if event.amount_minor is None else format_minor(event.amount_minor, escrow.terms.asset.scale)
    facts = {
        "milestone": event.position,
        "amount": amount,
        "role": event.role,
        "reason": event.reason,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _terms_facts(terms: Terms) -> dict[str, Any]:
    return {
        "asset": terms.asset.symbol,
        "milestones": [
            {"title": milestone.title, "amount": format_minor(milestone.amount_minor, terms.asset.scale)}
            for milestone in terms.milestones
        ],
        "buyer": terms.buyer.user_id,
        "seller": terms.seller.user_id,
        "arbiter": None if terms.arbiter is None else terms.arbiter.user_id,
        "reference": terms.reference,
    }


def _chain_facts(followed: FollowedMessage | None) -> dict[str, Any]:
    """Which transaction of a chain did it, where one did."""
    return {} if followed is None else {"tx_hash": followed.tx_hash, "chain_sequence": followed.sequence}


def _subject(escrow: Escrow) -> str:
    return escrow_workflow_id(escrow.escrow_id)
