"""Transfers in two phases and chains on the real database: one resolution, all or nothing, frozen means still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.escrow.messages import CancelMessage, FundMessage, PassDeadlineMessage
from activities.ledger.messages import TransferKind
from activities.messages import OriginMessage
from activities.transfers.chain import ChainActivities
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
    ResolutionMessage,
    VoidMessage,
)
from activities.transfers.steps import PendingTransferActivities
from db import controls, ledger
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from domain.controls import Freeze, FreezeScope
from domain.errors import Refusal
from domain.ids import chain_transaction_id
from domain.ledger import Balance
from domain.money import Asset
from domain.transfers import TransferStatus
from tests.activities.steps import Steps
from tests.desk import BUYER, SELLER, terms

T0 = datetime(2026, 3, 1, 9, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
RACERS = 32


class Transfers:
    """One tenant's transfers, step by step."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        doorbell = Doorbell(steps.engine)
        self.pending = PendingTransferActivities(steps.engine, doorbell)
        self.chains = ChainActivities(steps.engine, doorbell)

    async def open(self, amount_minor: int = 100, transfer_id: UUID | None = None, **changes: Any) -> UUID:
        fields: dict[str, Any] = {
            "source": BUYER,
            "target": SELLER,
            "asset": "USDC",
            "amount_minor": amount_minor,
            "expires_at": T0 + HOUR,
        }
        opening = OpenPendingTransfer(
            tenant_id=self.steps.tenant,
            transfer_id=transfer_id or new_id(),
            terms=PendingTerms(**(fields | changes)),
            origin=OriginMessage(user_id=BUYER, request_id="test"),
        )
        return (await self.record(opening)).transfer_id

    async def record(self, opening: OpenPendingTransfer) -> PendingSnapshot:
        answer = await self.steps.environment.run(self.pending.open, RecordPending(opening=opening, at=T0))
        return PendingSnapshot.model_validate(answer)

    async def resolve(
        self,
        transfer_id: UUID,
        command: ResolutionMessage | ExpireMessage,
        *,
        step: str | None = None,
        at: datetime = T0,
    ) -> PendingSnapshot:
        request = ApplyResolution(
            tenant_id=self.steps.tenant,
            transfer_id=transfer_id,
            step=step or str(new_id()),
            command=command,
            origin=OriginMessage(user_id=BUYER, request_id="test"),
            at=at,
        )
        return PendingSnapshot.model_validate(await self.steps.environment.run(self.pending.resolve, request))

    async def chain(self, *links: tuple[str, str, int], chain_id: UUID | None = None, **changes: Any) -> ChainOutcome:
        request = ChainRequest(
            tenant_id=self.steps.tenant,
            chain_id=chain_id or new_id(),
            links=tuple(
                ChainLink(source=source, target=target, asset="USDC", amount_minor=amount)
                for source, target, amount in links
            ),
            origin=OriginMessage(user_id=BUYER, request_id="test"),
            **changes,
        )
        answer = await self.steps.environment.run(self.chains.post_chain, RecordChain(request=request, at=T0))
        return ChainOutcome.model_validate(answer)

    async def freeze(self, scope: FreezeScope, ref: str | None = None) -> Callable[[], Awaitable[None]]:
        """Freeze, and answer what lifts it."""
        frozen = Freeze(new_id(), scope, ref, "a test", T0)
        async with tenant_transaction(self.steps.engine, self.steps.tenant) as connection:
            await controls.halt(connection, self.steps.tenant)
            await controls.place(connection, self.steps.tenant, frozen)

        async def lift() -> None:
            async with tenant_transaction(self.steps.engine, self.steps.tenant) as connection:
                await controls.halt(connection, self.steps.tenant)
                await controls.lift(connection, frozen.freeze_id, reason="over", at=T0)

        return lift


@pytest.fixture
async def transfers(steps: Steps) -> Transfers:
    await steps.deposit(BUYER, 1_000)
    return Transfers(steps)


async def refuses(code: str, attempt: Awaitable[object], field: str | None = None) -> None:
    with pytest.raises(Refusal) as caught:
        await attempt
    assert (caught.value.code, caught.value.field if field else None) == (code, field)


async def test_money_is_set_apart_once_and_resolved_once(transfers: Transfers) -> None:
    steps, transfer_id = transfers.steps, new_id()
    await transfers.open(transfer_id=transfer_id)
    assert await steps.balance(BUYER) == Balance(900, 100)
    written = await steps.written()
    await transfers.open(transfer_id=transfer_id)
    assert await steps.written() == written
    posted = await transfers.resolve(transfer_id, PostMessage(amount_minor=40), step="post-1")
    assert (posted.status, posted.posted_minor) == (TransferStatus.POSTED, 40)
    written = await steps.written()
    assert await transfers.resolve(transfer_id, PostMessage(amount_minor=40), step="post-1") == posted
    for command in (PostMessage(), VoidMessage(), ExpireMessage()):
        await refuses("transfer_posted", transfers.resolve(transfer_id, command))
    assert await steps.written() == written
    assert (await steps.balance(BUYER), await steps.balance(SELLER)) == (Balance(960), Balance(40))
    assert await steps.trial_balance() == {"USDC": 0}


async def test_racers_resolve_a_transfer_once(transfers: Transfers) -> None:
    """Posts, voids and the clock at once, at the instant of the expiry: exactly one of them wins."""
    transfer_id = await transfers.open()
    tries: list[tuple[ResolutionMessage | ExpireMessage, datetime]] = [
        (PostMessage(), T0),
        (PostMessage(amount_minor=30), T0),
        (VoidMessage(), T0),
        (ExpireMessage(), T0 + HOUR),
    ] * (RACERS // 4)
    found = await asyncio.gather(
        *(transfers.resolve(transfer_id, command, at=at) for command, at in tries), return_exceptions=True
    )
    won = [answer for answer in found if isinstance(answer, PendingSnapshot)]
    assert len(won) == 1
    lost = {answer.code for answer in found if isinstance(answer, Refusal)}
    assert lost == {f"transfer_{won[0].status.lower()}"}
    posted = won[0].posted_minor or 0
    assert await transfers.steps.balance(BUYER) == Balance(1_000 - posted)
    assert await transfers.steps.balance(SELLER) == Balance(posted)
    kinds = [each.posting.kind for each in await transfers.steps.transactions()]
    assert len(kinds) == 3, "deposit, hold, one resolution"


async def test_nobody_sets_apart_what_is_not_there(transfers: Transfers) -> None:
    written = await transfers.steps.written()
    await refuses("insufficient_funds", transfers.open(1_001))
    await refuses("transfer_to_itself", transfers.open(target=BUYER), "to")
    await refuses("asset_unknown", transfers.open(asset="DOGE"), "asset")
    resumption = OpenPendingTransfer(tenant_id=transfers.steps.tenant, transfer_id=new_id())
    await refuses("transfer_unknown", transfers.record(resumption))
    await refuses("transfer_unknown", transfers.resolve(new_id(), VoidMessage()))
    assert await transfers.steps.written() == written


async def test_a_reference_is_the_reason_also_when_the_money_is_gone(transfers: Transfers) -> None:
    await transfers.open(1_000, reference="rent")
    await refuses("reference_taken", transfers.open(1_000, reference="rent"), "reference")


async def test_a_chain_stands_or_falls_together(transfers: Transfers) -> None:
    steps = transfers.steps
    written = await steps.written()
    await refuses(
        "insufficient_funds",
        transfers.chain((BUYER, SELLER, 1_000), (SELLER, "carol", 600), (SELLER, "dave", 401)),
        "transfers.2.amount",
    )
    assert await steps.written() == written
    chain_id = new_id()
    links = ((BUYER, SELLER, 1_000), (SELLER, "carol", 600), (SELLER, "dave", 400))
    assert (await transfers.chain(*links, chain_id=chain_id, reference="c")).chain_id == chain_id
    booked = await steps.transactions()
    assert [each.posting.transaction_id for each in booked[1:]] == [chain_transaction_id(chain_id, n) for n in range(3)]
    written = await steps.written()
    assert (await transfers.chain(*links, chain_id=chain_id, reference="c")).chain_id == chain_id
    assert (await transfers.chain(*links, reference="c")).chain_id == chain_id
    await refuses("reference_taken", transfers.chain(*links[:2], reference="c"), "reference")
    assert await steps.written() == written


async def test_chains_at_once_with_one_reference_are_one(transfers: Transfers) -> None:
    found = await asyncio.gather(*(transfers.chain((BUYER, SELLER, 600), reference="c") for _ in range(8)))
    assert len({outcome.chain_id for outcome in found}) == 1
    assert await transfers.steps.balance(SELLER) == Balance(600)


async def test_a_transfer_at_once_names_both_sides_in_its_event(transfers: Transfers) -> None:
    await transfers.steps.transfer(TransferKind.TRANSFER, account=BUYER, counterparty=SELLER, amount_minor=7)
    ((data,),) = await transfers.steps.sql("SELECT data FROM outbox WHERE type = 'ledger.transferred'")
    assert (data["account"], data["counterparty"], data["amount"]) == (BUYER, SELLER, "-0.000007")


async def test_the_clock_waits_for_a_lift(transfers: Transfers) -> None:
    transfer_id = await transfers.open()
    for scope, ref, code in (
        (FreezeScope.ACCOUNT, BUYER, "account_frozen"),
        (FreezeScope.ASSET, "USDC", "asset_frozen"),
        (FreezeScope.TENANT, None, "tenant_frozen"),
    ):
        lift = await transfers.freeze(scope, ref)
        await refuses(code, transfers.resolve(transfer_id, ExpireMessage(), at=T0 + HOUR, step="expiry"))
        await refuses(code, transfers.resolve(transfer_id, PostMessage()))
        await lift()
    expired = await transfers.resolve(transfer_id, ExpireMessage(), at=T0 + HOUR, step="expiry")
    assert expired.status is TransferStatus.EXPIRED
    assert await transfers.steps.balance(BUYER) == Balance(1_000)


async def test_a_frozen_tenant_takes_no_command_that_moves_nothing_either(transfers: Transfers) -> None:
    steps = transfers.steps
    escrow_id = await steps.open(terms(100, funding_deadline=T0 + HOUR), at=T0)
    lift = await transfers.freeze(FreezeScope.TENANT)
    written = await steps.written()
    await refuses("tenant_frozen", steps.apply(escrow_id, BUYER, FundMessage(), at=T0))
    await refuses("tenant_frozen", steps.apply(escrow_id, BUYER, CancelMessage(), at=T0))
    await refuses("tenant_frozen", steps.apply(escrow_id, None, PassDeadlineMessage(), at=T0 + HOUR))
    await refuses("tenant_frozen", steps.open(terms(100)))
    assert await steps.written() == written
    await lift()
    await steps.apply(escrow_id, None, PassDeadlineMessage(), at=T0 + HOUR)


async def test_a_freeze_waits_for_what_is_under_way_and_stops_what_comes(
    transfers: Transfers, tenants_engine: AsyncEngine
) -> None:
    """A movement that passed the gate commits before the freeze is answered; one behind the freeze sees it."""
    tenant = transfers.steps.tenant
    async with tenant_transaction(tenants_engine, tenant) as under_way:
        await under_way.execute(text("SELECT ledger_enter(:tenant)"), {"tenant": tenant})
        freezing = asyncio.create_task(transfers.freeze(FreezeScope.ACCOUNT, BUYER))
        async with tenant_transaction(tenants_engine, tenant) as watching:
            query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            async with asyncio.timeout(10):
                while not await watching.scalar(query):  # noqa: ASYNC110 - the lock lies in the database
                    await asyncio.sleep(0.01)
        behind = asyncio.create_task(transfers.open())
        await asyncio.sleep(0.1)  # long enough for a freeze that does not wait
        assert not freezing.done()
    await freezing
    await refuses("account_frozen", behind)


async def test_limits_bind_what_begins_under_the_accounts_lock(transfers: Transfers) -> None:
    steps = transfers.steps
    async with tenant_transaction(steps.engine, steps.tenant) as connection:
        asset = (await controls.lock_limits(connection, steps.tenant, BUYER, await usdc(steps))).asset
        await controls.set_limits(connection, BUYER, controls.AccountLimits(asset, min_available_minor=900))
        racers = [asyncio.create_task(transfers.open(10)) for _ in range(RACERS)]
        await asyncio.sleep(0.1)
        assert not any(racer.done() for racer in racers), "the account is locked until the limits stand"
    found = await asyncio.gather(*racers, return_exceptions=True)
    assert sum(isinstance(answer, UUID) for answer in found) == 10
    assert {answer.code for answer in found if isinstance(answer, Refusal)} == {"limit_min_available"}
    assert await steps.balance(BUYER) == Balance(900, 100)


async def usdc(steps: Steps) -> Asset:
    """The asset as the table has it."""
    async with tenant_transaction(steps.engine, steps.tenant) as connection:
        return await ledger.get_asset(connection, "USDC")
