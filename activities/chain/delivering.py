"""Carrying a contract's events to the workflows of their escrows: those of one escrow in order, escrows at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from activities.chain.escrows import (
    Act,
    Disagreement,
    Fact,
    Unsupported,
    acts_of,
    escrow_id_of,
    follow,
    terms_of,
)
from activities.chain.messages import LinkMessage, NotSettled
from activities.escrow.messages import CommandMessage, EscrowCommand, EscrowOutcome, OpenEscrow, PassDeadlineMessage
from activities.messages import OriginMessage
from db.chain.settling import Link
from db.ids import new_id
from domain.chain import Settled
from domain.errors import Refusal, Unavailable
from domain.escrow import Escrow, open_escrow
from domain.ids import escrow_step_id
from domain.money import Asset
from kit.chains import Token

#: So many escrows are spoken to at once.
DELIVERIES_AT_ONCE = 40

FOLLOWED, UNSUPPORTED, DISAGREES = "followed", "unsupported", "disagrees"

_log = logging.getLogger(__name__)


class ChainEscrowDesk(Protocol):
    """Where escrows are opened, and commands on them judged and carried out."""

    async def open(self, opening: OpenEscrow, *, summary: str, details: str | None = None) -> EscrowOutcome:
        """Record an escrow and start its workflow. The same id opens it once. Raises ``Refusal`` or ``Unavailable``."""

    async def command(
        self, tenant_id: UUID, escrow_id: UUID, command: EscrowCommand, *, attempt_id: UUID | None = None
    ) -> EscrowOutcome:
        """One command; the same ``command_id`` has one effect. Raises its ``Refusal``, or ``Unavailable``."""

    async def reload(self, escrow_id: UUID) -> None:
        """Have the escrow's run load what is recorded: it may not know of a command that took effect."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is recorded of the escrows of a batch: links by their id on chain, escrows and steps' receipts."""

    links: Mapping[bytes, Link]
    escrows: Mapping[UUID, Escrow]
    receipts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Where:
    """Whose contract it is, and what its tokens are here."""

    tenant_id: UUID
    relayer_id: str
    tokens: Mapping[str, Token]
    assets: Mapping[str, Asset]


@dataclass(slots=True)
class Delivery:
    """One batch on its way. ``done`` has each event that has an outcome; the others of them stand in ``others``."""

    desk: ChainEscrowDesk
    where: Where
    known: Known
    repeated: bool
    done: set[int] = field(default_factory=set)
    others: list[NotSettled] = field(default_factory=list)
    links: list[LinkMessage] = field(default_factory=list)
    _seats: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DELIVERIES_AT_ONCE))
    _absences: int = 0

    async def carry(self, onchain_id: bytes, facts: Sequence[Fact]) -> None:
        """The events of one escrow, in order, up to the first whose escrow cannot be reached."""
        async with self._seats:
            # When nobody answers, asking all the others as well would only take their time.
            if self._absences >= DELIVERIES_AT_ONCE:
                return
            try:
                await _Line(self, onchain_id, list(facts)).carry()
            except Unavailable as absence:
                self._absences += 1
                _log.warning("events of escrow 0x%s are settled later: %s", onchain_id.hex(), absence)
            except Exception:  # noqa: BLE001 - logged with its traceback; its events are tried again
                # Nothing goes past it: money that moved on the chain is not left out here.
                _log.exception("events of escrow 0x%s met a bug", onchain_id.hex())

    def not_settled(self, facts: Sequence[Fact], outcome: Settled, code: str, reason: str) -> None:
        """These moved nothing."""
        for fact in facts:
            self.done.add(fact.sequence)
            self.others.append(NotSettled(sequence=fact.sequence, outcome=outcome, code=code, reason=reason[:500]))


class _Line:
    """The events of one escrow, of which ``facts`` are left."""

    def __init__(self, delivery: Delivery, onchain_id: bytes, facts: list[Fact]) -> None:
        self._delivery = delivery
        self._where = delivery.where
        self._onchain_id = f"0x{onchain_id.hex()}"
        self._link = delivery.known.links.get(onchain_id)
        self._facts = facts

    async def carry(self) -> None:
        if self._link is not None and self._link.status != FOLLOWED:
            self._leave_out(self._link)
            return
        try:
            escrow = await self._open() if self._link is None else self._recorded(self._link.escrow_id)
            for act in acts_of(self._facts):
                escrow = await self._act(escrow, act)
                self._is_done(act.facts)
        except Unsupported as found:
            self._end(UNSUPPORTED, Settled.UNSUPPORTED, found.code, found.reason)
        except Disagreement as found:
            self._end(DISAGREES, Settled.DISAGREES, found.code, found.reason)

    def _leave_out(self, link: Link) -> None:
        """Events of an escrow that is not followed, or no longer."""
        if link.status == UNSUPPORTED:
            self._delivery.not_settled(self._facts, Settled.UNSUPPORTED, link.code or "", link.reason or "")
        else:
            reason = f"it has not been followed since it disagreed: {link.code}"
            self._delivery.not_settled(self._facts, Settled.DISAGREES, "escrow_disagrees", reason)

    def _end(self, status: str, outcome: Settled, code: str, reason: str) -> None:
        """From this event on, the escrow is not followed."""
        escrow_id, at_fault, rest = self._escrow_id(), self._facts[:1], self._facts[1:]
        self._delivery.not_settled(at_fault, outcome, code, reason)
        if status == UNSUPPORTED:
            self._delivery.not_settled(rest, outcome, code, reason)
        else:
            self._delivery.not_settled(rest, outcome, "escrow_disagrees", f"its escrow disagreed before: {code}")
        self._delivery.links.append(
            LinkMessage(
                sequence=at_fault[0].sequence,
                onchain_id=self._onchain_id,
                escrow_id=escrow_id,
                status=status,
                code=code,
                reason=reason[:500],
            )
        )

    def _is_done(self, facts: Sequence[Fact]) -> None:
        self._delivery.done.update(fact.sequence for fact in facts)
        del self._facts[: len(facts)]

    def _escrow_id(self) -> UUID:
        if self._link is not None:
            return self._link.escrow_id
        return escrow_id_of(self._where.relayer_id, self._onchain_id, self._facts[0].at)

    def _recorded(self, escrow_id: UUID) -> Escrow:
        """As it is recorded, with all that had its effect before."""
        return self._delivery.known.escrows[escrow_id]

    async def _open(self) -> Escrow:
        """Open the escrow that the first event tells of. One that was opened before is as it is recorded."""
        first, where = self._facts[0], self._where
        if first.kind != "Created":
            raise Disagreement("escrow_unknown", f"{first.kind} {first.sequence} is of an escrow that was not created")
        terms = terms_of(where.relayer_id, first, where.tokens, where.assets)
        escrow_id = self._escrow_id()
        if escrow_id not in self._delivery.known.escrows:
            try:
                agreed = terms.to_terms(where.assets[terms.asset], (escrow_id,))
                escrow = open_escrow(escrow_id, agreed, first.at).escrow
                await self._delivery.desk.open(
                    OpenEscrow(
                        tenant_id=where.tenant_id,
                        escrow_id=escrow_id,
                        terms=terms,
                        origin=OriginMessage(user_id=first.by),
                        followed=first.followed,
                    ),
                    summary=f"on chain: {where.relayer_id}, {self._onchain_id}",
                )
            except Refusal as refusal:
                raise Disagreement(refusal.code, refusal.message) from None
        else:
            escrow = self._recorded(escrow_id)
        self._link = Link(bytes.fromhex(self._onchain_id[2:]), escrow_id, FOLLOWED)
        self._delivery.links.append(
            LinkMessage(sequence=first.sequence, onchain_id=self._onchain_id, escrow_id=escrow_id, status=FOLLOWED)
        )
        self._is_done([first])
        return escrow

    async def _act(self, escrow: Escrow, act: Act) -> Escrow:
        """Have one command carried out; answers the escrow after it."""
        operation_id = act.first.operation_id
        if escrow_step_id(escrow.escrow_id, operation_id) in self._delivery.known.receipts:
            # It had its effect in a delivery whose end was lost, and perhaps the run does not know.
            await self._delivery.desk.reload(escrow.escrow_id)
            return escrow
        message, decision = follow(act, escrow)
        outcome = await self._send(escrow.escrow_id, act, message)
        if (outcome.status, outcome.version) != (decision.escrow.status, decision.escrow.version):
            detail = f"{outcome.status} {outcome.version}, not {decision.escrow.status} {decision.escrow.version}"
            raise Disagreement("state_differs", f"the escrow is {detail} after {act.first.kind} {act.first.sequence}")
        return decision.escrow

    async def _send(self, escrow_id: UUID, act: Act, message: CommandMessage | PassDeadlineMessage) -> EscrowOutcome:
        first, repeated = act.first, self._delivery.repeated
        command = EscrowCommand(
            command_id=first.operation_id,
            command=message,
            origin=OriginMessage(user_id=first.by),
            repeated=repeated,
            followed=first.followed,
        )
        attempt_id = new_id() if repeated else None
        try:
            return await self._delivery.desk.command(self._where.tenant_id, escrow_id, command, attempt_id=attempt_id)
        except Refusal as refusal:
            raise Disagreement(refusal.code, f"{first.kind} {first.sequence}: {refusal.message}") from None
