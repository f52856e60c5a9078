"""The escrows' lane: take commands up, carry each to its escrow's workflow, write what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.escrow.messages import (
    CommandMessage,
    EscrowCommand,
    EscrowOutcome,
    FundMessage,
    RefundMessage,
    ReleaseMessage,
    to_command,
)
from activities.failures import BUG_ATTEMPTS_MAX
from activities.messages import OriginMessage
from activities.settlement.ledger import FAULT_CODE
from activities.settlement.messages import (
    BatchOutcome,
    DeliverBatch,
    Delivered,
    DeliveredOutcome,
    RecordBatch,
    TakenUp,
    TakeUpBatch,
)
from activities.settlement.outcomes import Scales, batch_audit, outcome_events, summed
from db import escrow as escrows
from db import settlement
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.settlement import EscrowTurn
from db.step import receipts_of, step
from domain.errors import Refusal, Unavailable
from domain.escrow import CLOSED, Escrow, decide
from domain.ids import escrow_step_id, settlement_operation_id, settlement_workflow_id
from domain.settlement import CommandKind, CommandStatus, Outcome, check_asset
from kit.clock import now

#: So many escrows are spoken to at once.
DELIVERIES_AT_ONCE = 40
HEARTBEAT_SECONDS = 2

_log = logging.getLogger(__name__)


class EscrowDesk(Protocol):
    """Where commands on escrows are judged and carried out."""

    async def command(
        self, tenant_id: UUID, escrow_id: UUID, command: EscrowCommand, *, attempt_id: UUID | None = None
    ) -> EscrowOutcome:
        """One command; the same ``command_id`` has one effect. Raises its ``Refusal``, or ``Unavailable``."""

    async def reload(self, escrow_id: UUID) -> None:
        """Have the escrow's run load what is recorded: it may not know of a command that took effect."""


class SettlementEscrowActivities:
    """Steps on the escrows' lane. ``engine`` acts as the tenants' role; ``desk`` reaches the escrows' workflows."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell, desk: EscrowDesk) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._desk = desk
        self._scales = Scales()

    @activity.defn(name="settlement.take_up")
    async def take_up(self, batch: TakeUpBatch) -> TakenUp:
        """Mark the next commands whose turn it is as being worked on, and answer which they are."""
        async with self._step(batch) as opened:
            if opened.receipt is not None:
                return TakenUp.model_validate(opened.receipt)
            sequences = await settlement.escrow_turns(opened.connection, batch.tenant_id, limit=batch.limit)
            if not sequences:
                opened.skip()
                return TakenUp(sequences=())
            await settlement.take_up(opened.connection, batch.tenant_id, sequences)
            result = TakenUp(sequences=tuple(sequences))
            await opened.finish(
                result=result.model_dump(mode="json"),
                audit=batch_audit(batch.tenant_id, "commands.taken_up", sequences, batch.at),
                events=[],
            )
            return result

    @activity.defn(name="settlement.deliver")
    async def deliver(self, batch: DeliverBatch) -> Delivered:
        """Carry commands to their escrows, those of one escrow one after the other, and answer the outcomes.

        A command whose escrow could not be reached has no outcome, and neither has what stands behind it. A command
        that had its effect before, in a delivery whose end was lost, is recognised by its receipt.
        """
        async with tenant_transaction(self._engine, batch.tenant_id) as connection:
            turns = await settlement.taken_up(connection, batch.tenant_id, batch.sequences)
            wanted = {turn.command.escrow_id for turn in turns if turn.command.escrow_id is not None}
            found = await escrows.find_many(connection, wanted)
            # After the escrows: of one that was read before its command took effect, the receipt may tell.
            done = await receipts_of(connection, batch.tenant_id, [_step_id(batch.tenant_id, turn) for turn in turns])
        delivery = _Delivery(self._desk, batch.tenant_id, found, done.keys())
        turns.sort(key=lambda turn: (str(turn.command.escrow_id), turn.sequence))
        lines = [list(line) for _, line in groupby(turns, key=lambda turn: turn.command.escrow_id)]
        lines.sort(key=lambda line: line[0].sequence)
        async with beating():
            await asyncio.gather(*(delivery.carry(line) for line in lines))
        return Delivered(outcomes=tuple(sorted(delivery.outcomes, key=lambda outcome: outcome.sequence)))

    @activity.defn(name="settlement.record")
    async def record(self, batch: RecordBatch) -> BatchOutcome:
        """Write outcomes, each with its event. What left a receipt was settled, whatever its delivery says."""
        async with self._step(batch) as opened:
            if opened.receipt is not None:
                return BatchOutcome.model_validate(opened.receipt)
            sequences = [outcome.sequence for outcome in batch.outcomes]
            turns = {
                turn.sequence: turn for turn in await settlement.taken_up(opened.connection, batch.tenant_id, sequences)
            }
            done = await receipts_of(
                opened.connection, batch.tenant_id, [_step_id(batch.tenant_id, turn) for turn in turns.values()]
            )
            outcomes = {
                said.sequence: _outcome(said, done.get(_step_id(batch.tenant_id, turns[said.sequence])))
                for said in batch.outcomes
                if said.sequence in turns
            }
            finished = await settlement.finish(opened.connection, batch.tenant_id, outcomes)
            kept = {sequence: outcome for sequence, outcome in outcomes.items() if sequence in finished}
            if not kept:
                opened.skip()
                return BatchOutcome()
            scales = await self._scales.of(opened.connection, {turn.command.asset_symbol for turn in turns.values()})
            result = summed(kept)
            await opened.finish(
                result=result.model_dump(mode="json"),
                audit=batch_audit(batch.tenant_id, "commands.finished", list(kept), batch.at, **result.model_dump()),
                events=outcome_events(
                    [(turns[sequence].command, outcome) for sequence, outcome in kept.items()], scales, batch.at
                ),
            )
            return result

    def _step(self, batch: TakeUpBatch | RecordBatch) -> Any:
        step_id = f"{settlement_workflow_id(batch.tenant_id)}:{batch.step}"
        return step(self._engine, self._doorbell, tenant_id=batch.tenant_id, step_id=step_id)


class _Delivery:
    """One batch on its way; ``outcomes`` grows."""

    def __init__(self, desk: EscrowDesk, tenant_id: UUID, found: Mapping[UUID, Escrow], done: Any) -> None:
        self.outcomes: list[DeliveredOutcome] = []
        self._desk = desk
        self._tenant_id = tenant_id
        self._found = found
        self._done = frozenset(done)
        self._seats = asyncio.Semaphore(DELIVERIES_AT_ONCE)
        self._absences = 0

    async def carry(self, line: Sequence[EscrowTurn]) -> None:
        """The commands of one escrow, in order, up to the first that has no outcome."""
        async with self._seats:
            for turn in line:
                # When nobody answers, asking all the others as well would only take their time.
                if self._absences >= DELIVERIES_AT_ONCE:
                    return
                try:
                    self.outcomes.append(await self._carry(turn))
                except Unavailable as absence:
                    self._absences += 1
                    _log.warning("command %s is delivered later: %s", turn.command.command_id, absence)
                    return

    async def _carry(self, turn: EscrowTurn) -> DeliveredOutcome:
        if _step_id(self._tenant_id, turn) in self._done:
            assert turn.command.escrow_id is not None, "only a command on an escrow leaves such a receipt"
            await self._desk.reload(turn.command.escrow_id)
            return DeliveredOutcome(sequence=turn.sequence, status=CommandStatus.SETTLED)
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._send(turn, repeated=attempt > 1 or turn.attempts > 1 or activity.info().attempt > 1)
                return DeliveredOutcome(sequence=turn.sequence, status=CommandStatus.SETTLED)
            except Refusal as refusal:
                return DeliveredOutcome(
                    sequence=turn.sequence, status=CommandStatus.REJECTED, code=refusal.code, reason=refusal.message
                )
            except Unavailable:
                raise
            except Exception:  # noqa: BLE001 - logged with its traceback; after a few attempts it is the outcome
                _log.exception("settlement command %s met a bug", turn.command.command_id)
                if attempt == BUG_ATTEMPTS_MAX:
                    reason = "a fault of ours; it was logged under the command's id"
                    return DeliveredOutcome(
                        sequence=turn.sequence, status=CommandStatus.FAILED, code=FAULT_CODE, reason=reason
                    )

    async def _send(self, turn: EscrowTurn, *, repeated: bool) -> None:
        command = turn.command
        escrow = None if command.escrow_id is None else self._found.get(command.escrow_id)
        if escrow is None:
            raise Refusal("escrow_unknown", f"there is no escrow {command.escrow_id}")
        check_asset(command.asset_symbol, escrow.terms.asset.symbol)
        message = _message(turn)
        if escrow.status in CLOSED:
            # Closed is final, so the row says it as surely as a workflow would, which may be gone.
            decide(escrow, to_command(message), user_id=command.account_ref, at=now())
        sent = EscrowCommand(
            command_id=settlement_operation_id(self._tenant_id, command.command_id),
            command=message,
            origin=OriginMessage(user_id=command.account_ref, key_id=turn.actor_key_id, request_id=turn.request_id),
            repeated=repeated,
        )
        attempt_id = new_id() if repeated else None
        await self._desk.command(self._tenant_id, escrow.escrow_id, sent, attempt_id=attempt_id)


def _message(turn: EscrowTurn) -> CommandMessage:
    """Funding takes exactly the amount as price; a payment takes it of one milestone, or of all when it is all."""
    command = turn.command
    match command.kind:
        case CommandKind.ESCROW_FUND:
            return FundMessage(positions=command.milestones, amount_minor=command.amount_minor)
        case CommandKind.ESCROW_RELEASE:
            return ReleaseMessage(positions=command.milestones, amount_minor=command.amount_minor, spread=True)
        case _:
            return RefundMessage(positions=command.milestones, amount_minor=command.amount_minor, spread=True)


def _step_id(tenant_id: UUID, turn: EscrowTurn) -> str:
    """Under which the escrow's step keeps the receipt of this command."""
    command = turn.command
    assert command.escrow_id is not None, "the escrows' lane has escrows only"
    return escrow_step_id(command.escrow_id, settlement_operation_id(tenant_id, command.command_id))


def _outcome(said: DeliveredOutcome, receipt: Any | None) -> Outcome:
    """What is written. The receipt knows the transaction: a command of these kinds makes exactly one."""
    if receipt is not None:
        (transaction_id,) = receipt["transactions"].values()
        return Outcome(CommandStatus.SETTLED, transaction_id=UUID(transaction_id))
    if said.status is CommandStatus.SETTLED:
        raise RuntimeError(f"command {said.sequence} was carried out and left no receipt")
    return Outcome(said.status, said.code, said.reason)


@asynccontextmanager
async def beating() -> AsyncIterator[None]:
    """Heartbeats while the work goes on, so that another worker takes over soon after this one died."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
