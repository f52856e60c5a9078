"""The ledger's lane: many commands, one commit, an outcome for each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.failures import BUG_ATTEMPTS_MAX
from activities.settlement.messages import BatchOutcome, SettleBatch
from activities.settlement.outcomes import Scales, batch_audit, outcome_events, summed
from db import ledger, settlement
from db.doorbell import Doorbell
from db.settlement import LedgerTurn
from db.step import step
from domain import ledger as rules
from domain.errors import Refusal, Unavailable
from domain.ids import settlement_workflow_id
from domain.settlement import Command, CommandKind, CommandStatus, Outcome

FAULT_CODE = "internal_error"

_log = logging.getLogger(__name__)


class SettlementLedgerActivities:
    """Steps on the ledger's lane. ``engine`` acts as the tenants' role; ``doorbell`` wakes the relay."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._scales = Scales()

    @activity.defn(name="settlement.settle")
    async def settle(self, batch: SettleBatch) -> BatchOutcome:
        """Carry out the next commands whose turn it is, at most ``limit``, and answer what came of them.

        What a rule refuses is rejected with its code and touches no other. A fault takes the whole batch back; asked
        for one command alone, the last attempt lets that one fail for good.
        """
        try:
            return await self._settle(batch)
        except (Refusal, Unavailable):
            raise
        except Exception:
            if batch.limit > 1 or activity.info().attempt < BUG_ATTEMPTS_MAX:
                raise
            _log.exception("a settlement command met a bug and fails")
            return await self._settle(batch, faulty=True)

    async def _settle(self, batch: SettleBatch, *, faulty: bool = False) -> BatchOutcome:
        tenant_id = batch.tenant_id
        step_id = f"{settlement_workflow_id(tenant_id)}:{batch.step}"
        async with step(self._engine, self._doorbell, tenant_id=tenant_id, step_id=step_id) as opened:
            if opened.receipt is not None:
                return BatchOutcome.model_validate(opened.receipt)
            turns = await settlement.ledger_turns(opened.connection, tenant_id, limit=batch.limit)
            if not turns:
                opened.skip()
                return BatchOutcome()
            outcomes = (
                {turn.sequence: _fault(turn.command) for turn in turns}
                if faulty
                else await _carry_out(opened.connection, batch, turns)
            )
            finished = await settlement.finish(opened.connection, tenant_id, outcomes)
            if len(finished) != len(outcomes):
                raise RuntimeError(f"{len(outcomes) - len(finished)} commands were finished by somebody else")
            scales = await self._scales.of(opened.connection, {turn.command.asset_symbol for turn in turns})
            result = summed(outcomes)
            await opened.finish(
                result=result.model_dump(mode="json"),
                audit=batch_audit(tenant_id, "commands.finished", list(outcomes), batch.at, **result.model_dump()),
                events=outcome_events([(turn.command, outcomes[turn.sequence]) for turn in turns], scales, batch.at),
            )
            return result


async def _carry_out(
    connection: AsyncConnection, batch: SettleBatch, turns: Sequence[LedgerTurn]
) -> dict[int, Outcome]:
    """Book what the rules allow; outcomes by sequence."""
    refused: dict[int, Refusal] = {}
    postings: dict[int, rules.Posting] = {}
    for turn in turns:
        try:
            postings[turn.sequence] = _posting(turn, batch.at)
        except Refusal as refusal:
            refused[turn.sequence] = refusal
    answers = await ledger.post_each(connection, batch.tenant_id, [[posting] for posting in postings.values()])
    refused |= {sequence: answer for sequence, answer in zip(postings, answers, strict=True) if answer is not None}
    return {
        turn.sequence: Outcome(CommandStatus.REJECTED, refused[turn.sequence].code, refused[turn.sequence].message)
        if turn.sequence in refused
        else Outcome(CommandStatus.SETTLED, transaction_id=turn.transaction_id)
        for turn in turns
    }


def _posting(turn: LedgerTurn, at: datetime) -> rules.Posting:
    command, transaction_id = turn.command, turn.transaction_id
    account, asset, amount_minor = command.account_ref, command.asset_symbol, command.amount_minor
    if command.kind is CommandKind.TRANSFER and command.counterparty_ref is not None:
        return rules.transfer(
            account,
            command.counterparty_ref,
            asset,
            amount_minor,
            transaction_id=transaction_id,
            effective_at=at,
            description=command.description,
        )
    book = rules.deposit if command.kind is CommandKind.DEPOSIT else rules.withdrawal
    return book(
        account, asset, amount_minor, transaction_id=transaction_id, effective_at=at, description=command.description
    )


def _fault(command: Command) -> Outcome:
    _log.error("settlement command %s failed", command.command_id)
    return Outcome(CommandStatus.FAILED, FAULT_CODE, "a fault of ours; it was logged under the command's id")
