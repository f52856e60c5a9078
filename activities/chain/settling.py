"""Settling a contract's events, once they are final: deliver them to their escrows, then write what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from activities.chain.delivering import ChainEscrowDesk, Delivery, Known, Where
from activities.chain.escrows import Fact, Unsupported, asset_of, escrow_id_of
from activities.chain.messages import (
    ChainSettled,
    ChainSettlementRun,
    DeliveredFinal,
    DeliverFinal,
    NotSettled,
    RecordFinal,
)
from activities.settlement.escrow import beating
from activities.watching import TASK_TIMEOUT
from db import escrow as escrows
from db import ledger
from db.audit import AuditRecord, Origin
from db.chain import settling, sources
from db.chain.credits import remaining
from db.chain.settling import Final as FinalEvent
from db.chain.settling import Link
from db.doorbell import Doorbell
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import Step, receipts_of, step
from domain.chain import Settled, Source
from domain.errors import Refusal
from domain.escrow import Escrow
from domain.ids import chain_settlement_workflow_id, escrow_step_id, relayer_workflow_id
from domain.ledger import Posting, TransactionKind, credit_hold_id, withdraw_from_chain
from domain.money import Asset
from kit.chains import Token
from kit.evm import decode

#: What a chain's tokens are here: the chain's name -> address -> token.
Tokens = Mapping[str, Mapping[str, Token]]

DISAGREED: Final = "chain.event_disagreed"
#: Events that one commit tells of one by one; the figures tell of the others.
TOLD_MAX: Final = 100
_WITHDRAWN: Final = "Withdrawn"
#: The relay wakes the workflow within a second or so; the margin keeps the watch from doing the same work.
WAITING_AFTER = timedelta(seconds=30)
SOURCES_MAX = 1_000

_log = logging.getLogger(__name__)
_settled = Counter("holdfast_chain_settled_total", "Final events that were settled", ["outcome"])


class ChainSettlementActivities:
    """``engine`` acts as the tenants' role; ``desk`` reaches the escrows' workflows."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell, desk: ChainEscrowDesk, tokens: Tokens) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._desk = desk
        self._tokens = tokens

    @activity.defn(name="chain.deliver")
    async def deliver(self, asked: DeliverFinal) -> DeliveredFinal:
        """Carry the next final events to their escrows, those of one escrow one after the other.

        An event whose escrow could not be reached has no outcome, and neither has what stands behind it. A command
        that had its effect before, in a delivery whose end was lost, is recognised by its receipt.
        """
        tenant_id = asked.run.tenant_id
        async with tenant_transaction(self._engine, tenant_id) as connection:
            source = await _source(connection, asked.run)
            after = await settling.settled_sequence(connection, source.source_id)
            events = await settling.next_final(connection, source.source_id, limit=asked.limit)
            if not events:
                return DeliveredFinal(after=after, through=after, found=0)
            lines = _lines(events)
            assets = {asset.symbol: asset for asset in await ledger.list_assets(connection)}
            known = await _known(connection, source, lines)
        where = Where(tenant_id, source.relayer_id, self._tokens.get(source.chain, {}), assets)
        repeated = asked.repeated or activity.info().attempt > 1
        delivery = Delivery(self._desk, where, known, repeated)
        delivery.done.update(event.sequence for event in events if event.kind == _WITHDRAWN)
        async with beating():
            await asyncio.gather(*(delivery.carry(subject, facts) for subject, facts in lines.items()))
        through = after
        while through + 1 in delivery.done:
            through += 1
        return DeliveredFinal(
            after=after,
            through=through,
            found=len(events),
            others=tuple(sorted((o for o in delivery.others if o.sequence <= through), key=lambda o: o.sequence)),
            # What an escrow came to by an event that has no outcome yet is found again with it.
            links=tuple(link for link in delivery.links if link.sequence <= through),
        )

    @activity.defn(name="chain.record")
    async def record(self, asked: RecordFinal) -> ChainSettled:
        """Write outcomes: withdrawals in the ledger, the events, their escrows, the cursor; one commit.

        Nothing where somebody else moved the cursor meanwhile.
        """
        run, delivered = asked.run, asked.delivered
        step_id = f"{chain_settlement_workflow_id(run.relayer_id)}:{asked.step}"
        async with step(self._engine, self._doorbell, tenant_id=run.tenant_id, step_id=step_id) as opened:
            if opened.receipt is not None:
                return ChainSettled.model_validate(opened.receipt)
            connection = opened.connection
            source = await _source(connection, run)
            standing = await settling.settled_sequence(connection, source.source_id, lock=True)
            if standing != delivered.after or delivered.through <= delivered.after:
                opened.skip()
                return ChainSettled()
            withdrawals, others = await self._withdraw(opened, source, asked)
            others = {other.sequence: other for other in delivered.others} | others
            count = await settling.settle(
                connection,
                source.source_id,
                delivered.after,
                delivered.through,
                {sequence: (other.outcome, other.code) for sequence, other in others.items()},
            )
            if count != delivered.through - delivered.after:
                raise RuntimeError(
                    f"{delivered.through - delivered.after} events were to be settled, {count} are there"
                )
            fresh = [
                Link(bytes.fromhex(link.onchain_id[2:]), link.escrow_id, link.status, link.code, link.reason)
                for link in delivered.links
            ]
            await settling.put_links(connection, source.source_id, run.tenant_id, fresh)
            result = _summed(count, others.values())
            await opened.finish(
                result=result.model_dump(mode="json"),
                audit=_audit(asked, result, withdrawals),
                events=await _disagreements(connection, source, asked, others.values()),
            )
        for outcome, number in (("settled", result.settled), ("unsupported", result.unsupported)):
            _settled.labels(outcome).inc(number)
        _settled.labels("disagrees").inc(result.disagreeing)
        return result

    async def _withdraw(
        self, opened: Step, source: Source, asked: RecordFinal
    ) -> tuple[dict[str, str], dict[int, NotSettled]]:
        """Book what left the contract; answers transactions by event's number, and what could not be booked."""
        connection, tenant, delivered = opened.connection, opened.tenant_id, asked.delivered
        events = await settling.finals_between(
            connection, source.source_id, delivered.after, delivered.through, _WITHDRAWN
        )
        if not events:
            return {}, {}
        assets = {asset.symbol: asset for asset in await ledger.list_assets(connection)}
        tokens = self._tokens.get(source.chain, {})
        left = dict(await remaining(connection, tenant, [_hold_of(source, event) for event in events]))
        more = await settling.unmirrored(
            connection, source.source_id, _beyond(source, events, left), {other.sequence for other in delivered.others}
        )
        postings: dict[int, Posting] = {}
        others: dict[int, NotSettled] = {}
        for event in events:
            try:
                posting = _withdrawal(source, event, tokens, assets, left, unmirrored=more.get(event.sequence, 0))
                if posting is not None:
                    postings[event.sequence] = posting
            except Unsupported as found:
                others[event.sequence] = _other(event, Settled.UNSUPPORTED, found.code, found.reason)
            except Refusal as refusal:
                others[event.sequence] = _other(event, Settled.DISAGREES, refusal.code, refusal.message)
        answers = await ledger.post_each(connection, tenant, [[posting] for posting in postings.values()])
        numbers = {event.sequence: event for event in events}
        for sequence, refused in zip(list(postings), answers, strict=True):
            if refused is not None:
                del postings[sequence]
                others[sequence] = _other(numbers[sequence], Settled.DISAGREES, refused.code, refused.message)
        return {str(sequence): str(posting.transaction_id) for sequence, posting in postings.items()}, others


class ChainSettlementWatchActivities:
    """The watch over events that nobody settles. ``engine`` acts as the role that sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="chain.resume_settlement")
    async def resume_waiting(self) -> int:
        """Wake the settlement of every relayer whose final events wait too long, or start it; returns how many."""
        async with transaction(self._engine) as connection:
            waiting = await settling.list_waiting(connection, WAITING_AFTER, limit=SOURCES_MAX)
        client = activity.client()
        for found in waiting:
            await client.start_workflow(
                "ChainSettlementWorkflow",
                ChainSettlementRun(tenant_id=found.tenant_id, relayer_id=found.relayer_id),
                id=chain_settlement_workflow_id(found.relayer_id),
                task_queue=activity.info().task_queue,
                task_timeout=TASK_TIMEOUT,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                start_signal="settle",
                static_summary="woken by the watch: final events had waited too long",
            )
            activity.heartbeat(found.relayer_id)
        return len(waiting)


async def _source(connection: AsyncConnection, run: ChainSettlementRun) -> Source:
    found = await sources.find(connection, run.relayer_id)
    if found is None:
        raise Refusal("relayer_unknown", f"there is no relayer {run.relayer_id}")
    return found.source


def _lines(events: Iterable[FinalEvent]) -> dict[bytes, list[Fact]]:
    """The events of each escrow, in order."""
    lines: dict[bytes, list[Fact]] = {}
    for event in events:
        if event.kind != _WITHDRAWN:
            assert event.subject is not None, "each event of an escrow has its id"
            arguments = decode(event.kind, event.payload)
            fact = Fact(event.sequence, event.kind, event.consumer_id, event.tx_hash, event.at, arguments)
            lines.setdefault(event.subject, []).append(fact)
    return lines


async def _known(connection: AsyncConnection, source: Source, lines: Mapping[bytes, Sequence[Fact]]) -> Known:
    """What is recorded of these escrows, as of one moment: what has a receipt has its effect in the escrow, too."""
    links = await settling.links(connection, source.source_id, list(lines))
    ids = {
        subject: links[subject].escrow_id
        if subject in links
        else escrow_id_of(source.relayer_id, f"0x{subject.hex()}", facts[0].at)
        for subject, facts in lines.items()
    }
    steps = [escrow_step_id(ids[subject], fact.operation_id) for subject, facts in lines.items() for fact in facts]
    while True:
        found = await escrows.find_many(connection, ids.values())
        # After the escrows: of one that was read before its command took effect, the receipt tells.
        receipts = await receipts_of(connection, source.tenant_id, steps)
        if not _is_behind(found, ids, lines, receipts):
            return Known(links, found, receipts)


def _is_behind(
    found: Mapping[UUID, Escrow],
    ids: Mapping[bytes, UUID],
    lines: Mapping[bytes, Sequence[Fact]],
    receipts: Mapping[str, Any],
) -> bool:
    for subject, facts in lines.items():
        escrow = found.get(ids[subject])
        version = 0 if escrow is None else escrow.version
        for fact in facts:
            receipt = receipts.get(escrow_step_id(ids[subject], fact.operation_id))
            if receipt is not None and int(receipt["version"]) > version:
                return True
    return False


def _hold_of(source: Source, event: FinalEvent) -> UUID:
    return credit_hold_id(source.relayer_id, *_whose(event))


def _whose(event: FinalEvent) -> tuple[str, str]:
    """Token and account of a withdrawal."""
    assert event.token is not None, "a withdrawal has a token"
    assert event.account is not None, "a withdrawal has an account"
    return f"0x{event.token.hex()}", f"0x{event.account.hex()}"


def _beyond(source: Source, events: Iterable[FinalEvent], left: Mapping[UUID, int]) -> list[int]:
    """The numbers of withdrawals by accounts that take more than the ledger says they are owed."""
    taken: dict[UUID, int] = {}
    numbers: dict[UUID, list[int]] = {}
    for event in events:
        hold_id = _hold_of(source, event)
        taken[hold_id] = taken.get(hold_id, 0) + (event.amount or 0)
        numbers.setdefault(hold_id, []).append(event.sequence)
    beyond = [hold_id for hold_id, amount in taken.items() if amount > left.get(hold_id, 0)]
    return [number for hold_id in beyond for number in numbers[hold_id]]


def _withdrawal(
    source: Source,
    event: FinalEvent,
    tokens: Mapping[str, Token],
    assets: Mapping[str, Asset],
    left: dict[UUID, int],
    *,
    unmirrored: int,
) -> Posting | None:
    """What left the contract, less what was owed for escrows that are not followed; ``left`` loses it. None where that
    was all. Raises ``Unsupported``, and ``Refusal`` where less was credited."""
    token, account = _whose(event)
    asset, hold_id = asset_of(token, tokens, assets), _hold_of(source, event)
    amount, standing = (event.amount or 0) - unmirrored, left.get(hold_id, 0)
    if amount == 0:
        return None
    if not 0 < amount <= standing:
        raise Refusal("hold_exhausted", f"{account} was credited with {standing} that is left, and withdrew {amount}")
    left[hold_id] = standing - amount
    return Posting(
        transaction_id=new_id(),
        kind=TransactionKind.CHAIN_WITHDRAWAL,
        legs=withdraw_from_chain(source.relayer_id, account, asset.symbol, amount, hold_id=hold_id),
        effective_at=event.at,
        description=f"withdrawn on chain in 0x{event.tx_hash.hex()}",
    )


def _other(event: FinalEvent, outcome: Settled, code: str, reason: str) -> NotSettled:
    return NotSettled(sequence=event.sequence, outcome=outcome, code=code, reason=reason)


def _summed(count: int, others: Iterable[NotSettled]) -> ChainSettled:
    outcomes = [other.outcome for other in others]
    disagreeing = outcomes.count(Settled.DISAGREES)
    unsupported = outcomes.count(Settled.UNSUPPORTED)
    return ChainSettled(
        settled=count - len(outcomes),
        unsupported=unsupported,
        disagreeing=disagreeing,
    )


def _audit(asked: RecordFinal, result: ChainSettled, withdrawals: Mapping[str, str]) -> AuditRecord:
    delivered, relayer_id = asked.delivered, asked.run.relayer_id
    details = {
        "first_sequence": delivered.after + 1,
        "last_sequence": delivered.through,
        "transactions": withdrawals,
        **result.model_dump(),
    }
    origin = Origin(workflow_id=chain_settlement_workflow_id(relayer_id))
    return AuditRecord(relayer_workflow_id(relayer_id), "chain.settled", asked.at, origin, details)


async def _disagreements(
    connection: AsyncConnection, source: Source, asked: RecordFinal, others: Iterable[NotSettled]
) -> list[OutboxEvent]:
    """One event for each that the rules disagree with; what follows in the same escrow is told by the first."""
    wanted = {
        other.sequence: other
        for other in others
        if other.outcome is Settled.DISAGREES and other.code != "escrow_disagrees"
    }
    if not wanted:
        return []
    found = await settling.finals_between(connection, source.source_id, min(wanted) - 1, max(wanted))
    return [
        OutboxEvent(
            new_id(),
            SETTLEMENT_TOPIC,
            DISAGREED,
            relayer_workflow_id(source.relayer_id),
            asked.at,
            {
                "relayer_id": source.relayer_id,
                "consumer_id": str(event.consumer_id),
                "kind": event.kind,
                "subject": None if event.subject is None else f"0x{event.subject.hex()}",
                "code": wanted[event.sequence].code,
                "reason": wanted[event.sequence].reason,
            },
        )
        for event in found
        if event.sequence in wanted
    ][:TOLD_MAX]
