"""Asks about money and about what operators set: transfers of every kind, freezes and limits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from activities.ledger.messages import RecordTransfer, TransferKind, TransferOutcome, TransferRequest
from activities.messages import OriginMessage
from activities.transfers.messages import (
    ApplyResolution,
    ChainLink,
    ChainOutcome,
    ChainRequest,
    ExpireMessage,
    OpenPendingTransfer,
    PendingSnapshot,
    PendingTerms,
    PostMessage,
    RecordChain,
    RecordPending,
    VoidMessage,
)
from db import controls, ledger
from db.engine import tenant_transaction
from db.ids import new_id
from domain.controls import Freeze, FreezeScope, check_free, check_limits
from domain.errors import Refusal
from domain.ids import chain_transaction_id
from tests.model.asks import Worker
from tests.model.books import Flow, World
from tests.model.controls import Bounds
from tests.model.pending import Pending


@dataclass(frozen=True)
class Transfer:
    """Move money between the outside and an account, or two accounts."""

    flow: Flow
    at: datetime

    @property
    def kind(self) -> str:
        return self.flow.kind

    async def send(self, worker: Worker) -> str:
        flow = self.flow
        request = TransferRequest(
            tenant_id=worker.tenant,
            transfer_id=UUID(flow.key),
            kind=TransferKind(flow.kind),
            account=flow.account,
            counterparty=flow.other,
            asset=flow.asset,
            amount_minor=flow.amount,
            reverses_id=None if flow.takes_back is None else transaction_id(flow.takes_back),
            reference=flow.reference,
            effective_at=flow.counts_from,
        )
        outcome: TransferOutcome = await worker.run(worker.ledger.transfer, RecordTransfer(request=request, at=self.at))
        return str(outcome.transaction_id)

    def expect(self, world: World) -> str:
        return world.transfer(self.flow, self.at)


@dataclass(frozen=True)
class Chain:
    """Transfers that are booked together or not at all."""

    key: str
    links: tuple[Flow, ...]
    at: datetime
    kind: str = "chain"

    async def send(self, worker: Worker) -> str:
        request = ChainRequest(
            tenant_id=worker.tenant,
            chain_id=UUID(self.key),
            links=tuple(
                ChainLink(
                    source=link.account or "", target=link.other or "", asset=link.asset or "", amount_minor=link.amount
                )
                for link in self.links
            ),
            reference=self.links[0].reference,
        )
        outcome: ChainOutcome = await worker.run(worker.chains.post_chain, RecordChain(request=request, at=self.at))
        return str(outcome.chain_id)

    def expect(self, world: World) -> str:
        return world.chain(self.key, self.links, self.at)


@dataclass(frozen=True)
class SetApart:
    """Begin a transfer in two phases."""

    pending: Pending
    reference: str | None
    at: datetime
    kind: str = "transfer_hold"

    async def send(self, worker: Worker) -> str:
        pending = self.pending
        terms = PendingTerms(
            source=pending.source,
            target=pending.target,
            asset=pending.asset,
            amount_minor=pending.amount,
            expires_at=pending.expires,
            reference=self.reference,
        )
        opening = OpenPendingTransfer(tenant_id=worker.tenant, transfer_id=UUID(pending.key), terms=terms)
        found: PendingSnapshot = await worker.run(worker.pending.open, RecordPending(opening=opening, at=self.at))
        return str(found.transfer_id)

    def expect(self, world: World) -> str:
        return world.set_apart(self.pending, self.reference, self.at)


@dataclass(frozen=True)
class Resolve:
    """End a transfer in two phases. The answer is where it stands."""

    key: str
    step: str
    verb: str
    amount: int | None
    at: datetime

    @property
    def kind(self) -> str:
        return self.verb

    async def send(self, worker: Worker) -> str:
        command: Any = {
            "post": PostMessage(amount_minor=self.amount),
            "void": VoidMessage(),
            "expire": ExpireMessage(),
        }[self.verb]
        request = ApplyResolution(
            tenant_id=worker.tenant,
            transfer_id=UUID(self.key),
            step=self.step,
            command=command,
            origin=OriginMessage(),
            at=self.at,
        )
        found: PendingSnapshot = await worker.run(worker.pending.resolve, request)
        return f"{found.transfer_id} {found.status} of {found.posted_minor or 0}"

    def expect(self, world: World) -> str:
        found = world.pending[world.resolve(self.key, self.step, self.verb, self.amount, self.at)]
        return f"{found.key} {found.state} of {found.posted}"


@dataclass(frozen=True)
class Stop:
    """Freeze an account, an asset or the tenant, or lift that again, as the API does it."""

    verb: Literal["freeze", "lift"]
    scope: str
    ref: str
    at: datetime

    @property
    def kind(self) -> str:
        return self.verb

    async def send(self, worker: Worker) -> str:
        scope, ref = FreezeScope(self.scope), self.ref or None
        async with tenant_transaction(worker.engine, worker.tenant) as connection:
            await controls.halt(connection, worker.tenant)
            standing = await controls.find_active(connection, scope, ref)
            if self.verb == "freeze":
                check_free(standing)
                await controls.place(connection, worker.tenant, Freeze(new_id(), scope, ref, "why", self.at))
                return "frozen"
            if standing is None:
                raise Refusal("freeze_unknown", "nothing is frozen")
            await controls.lift(connection, standing.freeze_id, reason="why not", at=self.at)
            return "lifted"

    def expect(self, world: World) -> str:
        act = world.freeze if self.verb == "freeze" else world.lift
        return act(self.scope, self.ref)


@dataclass(frozen=True)
class Bound:
    """Set an account's limits, as the API does it."""

    account: str
    asset: str
    bounds: Bounds
    at: datetime
    kind: str = "bound"

    async def send(self, worker: Worker) -> str:
        keeps, has, pays = self.bounds.keeps, self.bounds.has, self.bounds.pays
        async with tenant_transaction(worker.engine, worker.tenant) as connection:
            asset = await ledger.get_asset(connection, self.asset)
            check_limits(keeps, has)
            await controls.lock_limits(connection, worker.tenant, self.account, asset)
            await controls.set_limits(connection, self.account, controls.AccountLimits(asset, keeps, has, pays))
        return "bounded"

    def expect(self, world: World) -> str:
        return world.bound(self.account, self.asset, self.bounds)


def transaction_id(key: str) -> UUID:
    """Of a flow by its key; the links of a chain but the first have the chain's, and their number."""
    chain, _, number = key.partition("#")
    return chain_transaction_id(UUID(chain), int(number or 0))
