"""The two steps of an escrow: record it, and carry a command out. Each is one commit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.escrow.messages import ApplyCommand, RecordOpening, to_command
from activities.escrow.snapshot import EscrowSnapshot
from db import controls, ledger
from db import escrow as escrows
from db.audit import AuditRecord
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import Step, step
from domain.errors import Refusal
from domain.escrow import Decision, Escrow, Event, Movement, Terms, decide, open_escrow
from domain.ids import escrow_step_id, escrow_workflow_id
from domain.ledger import Freezes, Leg, Posting, TransactionKind, check_frozen, merge, pay_from_hold, place_hold
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
                await _check_not_frozen(opened)
                asset = await ledger.get_asset(opened.connection, opening.terms.asset)
                terms = opening.terms.to_terms(asset, tuple(new_id() for _ in opening.terms.milestones))
                decision = open_escrow(opening.escrow_id, terms, request.at)
                await escrows.insert(
                    opened.connection, opening.tenant_id, decision.escrow, opening.terms.content_hash()
                )
                origin = opening.origin.to_origin(escrow_workflow_id(opening.escrow_id))
                audit = AuditRecord(_subject(decision.escrow), "escrow.open", request.at, origin, _terms_facts(terms))
                await opened.finish(
                    result={"version": decision.escrow.version}, audit=audit, events=_events(decision, {})
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
            decision = decide(before, to_command(request.command), user_id=request.origin.user_id, at=request.at)
            transactions = await _post(opened, request, decision)
            await escrows.update(opened.connection, request.tenant_id, before, decision.escrow)
            await opened.finish(
                result={"version": decision.escrow.version, "transactions": transactions},
                audit=_audit(request, before, decision, transactions),
                events=_events(decision, transactions),
            )
            return EscrowSnapshot.of(decision.escrow)


async def _get(opened: Step, escrow_id: UUID) -> Escrow:
    found = await escrows.find(opened.connection, escrow_id)
    if found is None:
        raise RuntimeError(f"escrow {escrow_id} has a receipt but no row")
    return found


async def _post(opened: Step, request: ApplyCommand, decision: Decision) -> dict[str, str]:
    """Book what the decision moves: one transaction per kind, whatever number of milestones; their ids by kind."""
    terms = decision.escrow.terms
    by_kind: dict[TransactionKind, list[Leg]] = {}
    for movement in decision.movements:
        by_kind.setdefault(_posting_kind(request, movement), []).extend(_legs(terms, movement))
    postings = [
        Posting(
            transaction_id=new_id(),
            kind=kind,
            legs=merge(legs),
            effective_at=request.at,
            description=f"{request.command.kind} of escrow {terms.reference or request.escrow_id}",
            escrow_id=request.escrow_id,
        )
        for kind, legs in by_kind.items()
    ]
    if postings:
        await ledger.post(opened.connection, request.tenant_id, postings)
    else:
        await _check_not_frozen(opened)
    return {posting.kind: str(posting.transaction_id) for posting in postings}


async def _check_not_frozen(opened: Step) -> None:
    """Refuse what moves no money, too, while the tenant is frozen; where money moves, the ledger asks by itself."""
    check_frozen(Freezes(tenant=await controls.is_tenant_frozen(opened.connection, opened.tenant_id)), {})


def _legs(terms: Terms, movement: Movement) -> Iterable[Leg]:
    asset, holder = terms.asset.symbol, terms.buyer.user_id
    if movement.placed_minor:
        return place_hold(holder, asset, movement.placed_minor, hold_id=movement.hold_id)
    payees = {
        terms.seller.user_id: movement.to_seller_minor,
        holder: movement.to_buyer_minor,
        terms.fee_account: movement.fee_minor,
    }
    return pay_from_hold(holder, asset, payees, hold_id=movement.hold_id)


def _posting_kind(request: ApplyCommand, movement: Movement) -> TransactionKind:
    match request.command.kind:
        case "fund":
            return TransactionKind.ESCROW_FUND
        case "resolve":
            return TransactionKind.ESCROW_RESOLUTION
        case _ if movement.to_seller_minor or movement.fee_minor:
            return TransactionKind.ESCROW_RELEASE
        case _:
            return TransactionKind.ESCROW_REFUND


def _audit(request: ApplyCommand, before: Escrow, decision: Decision, transactions: dict[str, str]) -> AuditRecord:
    details: dict[str, Any] = {
        "command": request.command.model_dump(mode="json", exclude_none=True),
        "status": {"before": before.status, "after": decision.escrow.status},
        "version": decision.escrow.version,
        "events": [{"type": event.type} | _event_facts(decision.escrow, event) for event in decision.events],
        "transactions": transactions,
    }
    origin = request.origin.to_origin(escrow_workflow_id(request.escrow_id))
    return AuditRecord(_subject(before), f"escrow.{request.command.kind}", request.at, origin, details)


def _events(decision: Decision, transactions: dict[str, str]) -> list[OutboxEvent]:
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
    }
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


def _subject(escrow: Escrow) -> str:
    return escrow_workflow_id(escrow.escrow_id)
