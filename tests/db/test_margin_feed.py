"""The feed and margin: money that moves starts checks of accounts that are there; events that have left are marked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event as sa_event

from activities.consuming import Consumer
from activities.dispatch import Wake
from activities.margin import published, sync
from activities.margin.sync import MarginSync, MarginSyncConsumer
from db.consumers import standing
from db.engine import transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC
from domain.errors import Unavailable
from tests.activities.margin import Checks, owes, owns
from tests.db.feeds import Feeds
from tests.db.raw import sql
from tests.prices import set_prices
from workflows.listeners import margin_check

AT = datetime(2026, 5, 1, tzinfo=UTC)


class Wakes:
    """Keeps what is woken; ``away`` makes it unavailable."""

    def __init__(self) -> None:
        self.woken: list[Wake] = []
        self.away = False

    async def wake(self, wake: Wake) -> None:
        if self.away:
            raise Unavailable("temporal", "away")
        self.woken.append(wake)

    @property
    def users(self) -> list[tuple[UUID, str]]:
        return [(wake.argument.tenant_id, wake.argument.user_id) for wake in self.woken]


def syncing(feeds: Feeds, consumers: list[Consumer], wakes: Wakes, **how: Any) -> Consumer:
    handler = MarginSync(feeds.engine, wakes, margin_check)
    consumers.append(MarginSyncConsumer(feeds.engine, feeds.url, sync.CONSUMER, handler, **how))
    return consumers[-1]


@pytest.fixture
async def consumers() -> AsyncIterator[list[Consumer]]:
    """What a test has at work; at its end each lets go of its lock."""
    made: list[Consumer] = []
    yield made
    for consumer in made:
        await consumer._leadership.release()


async def tell(feeds: Feeds, type_: str, tenant: UUID | None = None, **data: Any) -> None:
    async with transaction(feeds.engine) as connection:
        await sql(
            connection,
            "INSERT INTO outbox (tenant_id, event_id, topic, type, subject, data, occurred_at)"
            " SELECT :tenant, uuidv7(), :topic, :type, 'x', CAST(:data AS jsonb), :at",
            tenant=tenant or feeds.tenant,
            topic=SETTLEMENT_TOPIC,
            type=type_,
            data=_json(data),
            at=AT,
        )


def _json(data: dict[str, Any]) -> str:
    pairs = ", ".join(f'"{name.rstrip("_")}": "{value}"' for name, value in data.items())
    return f"{{{pairs}}}"


async def account(feeds: Feeds, user: str = "alice") -> Checks:
    await set_prices(feeds.engine, ETH=2_000, USDC=1)
    checks = Checks(feeds.app, feeds.tenant)
    await checks.check(owns("ETH", 1), user=user)
    return checks


async def work_off(consumer: Consumer, feeds: Feeds) -> None:
    await feeds.number()
    while await consumer.pass_once():
        pass


async def test_who_has_an_account_is_looked_at_once_a_page(feeds: Feeds, consumers: list[Consumer]) -> None:
    await account(feeds)
    wakes = Wakes()
    for _ in range(3):
        await tell(feeds, "ledger.deposited", account="alice")
    await tell(feeds, "escrow.funded", buyer="alice", seller="bob")
    await tell(feeds, "escrow.approved", buyer="alice", seller="bob")
    await tell(feeds, "ledger.deposited", account="alice", tenant=new_id())
    await work_off(syncing(feeds, consumers, wakes), feeds)
    assert wakes.users == [(feeds.tenant, "alice")]


async def test_every_way_in_which_money_moves_is_noticed(feeds: Feeds, consumers: list[Consumer]) -> None:
    for user in ("a", "b"):
        await account(feeds, user)
    ends = ("released", "refunded", "resolved", "expired", "cancelled")
    parties: dict[str, Any] = {"buyer": "a", "seller": "b"}
    ways: dict[str, Any] = {"from_": "a", "to": "b"}
    kinds: Sequence[tuple[str, dict[str, Any]]] = [
        *((f"escrow.{each}", parties) for each in ends),
        *((f"transfer.{each}", ways) for each in ("pending", "posted", "voided", "expired")),
        ("ledger.transferred", {"account": "a", "counterparty": "b"}),
        ("command.settled", {"account_ref": "a", "counterparty_ref": "b"}),
    ]
    wakes = Wakes()
    consumer = syncing(feeds, consumers, wakes, page_events=1)
    for type_, data in kinds:
        wakes.woken.clear()
        await tell(feeds, type_, **data)
        await work_off(consumer, feeds)
        assert wakes.users == [(feeds.tenant, "a"), (feeds.tenant, "b")], type_


async def test_without_accounts_a_page_is_one_look(feeds: Feeds, consumers: list[Consumer]) -> None:
    """No event is read: one statement says that there is nobody, and the cursor moves."""
    wakes = Wakes()
    for _ in range(5):
        await tell(feeds, "ledger.deposited", account="alice")
    await feeds.number()
    consumer = syncing(feeds, consumers, wakes)
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    sa_event.listen(feeds.engine.sync_engine, "before_cursor_execute", note)
    try:
        await consumer.pass_once()
    finally:
        sa_event.remove(feeds.engine.sync_engine, "before_cursor_execute", note)
    assert sum("margin_" in statement for statement in statements) == 1
    assert not any("occurred_at" in statement for statement in statements), "no event was read"
    assert wakes.woken == []
    async with transaction(feeds.engine) as connection:
        stands = await standing(connection, sync.CONSUMER)
    assert stands is not None
    assert stands.behind == 0


async def test_what_is_delivered_again_is_the_same_check(feeds: Feeds, consumers: list[Consumer]) -> None:
    await account(feeds)
    wakes = Wakes()
    consumer = syncing(feeds, consumers, wakes)
    wakes.away = True
    await tell(feeds, "ledger.deposited", account="alice")
    await feeds.number()
    for _ in range(2):
        try:
            await consumer.pass_once()
        except Unavailable:
            continue
        raise AssertionError("an absence moves no cursor")
    wakes.away = False
    await work_off(consumer, feeds)
    async with transaction(feeds.engine) as connection:
        await sql(connection, "UPDATE feed_consumers SET position = 0")
    await work_off(consumer, feeds)
    first, second = wakes.woken
    assert first.workflow_id == second.workflow_id
    assert first.workflow_id.startswith("margin-check:")


async def test_an_event_is_marked_once_the_feed_has_it(feeds: Feeds, consumers: list[Consumer]) -> None:
    checks = await account(feeds)
    await checks.check(owns("ETH", 1), owes("USDC", 1_500))
    consumer = Consumer(feeds.engine, feeds.url, published.CONSUMER, published.InTheFeed())
    consumers.append(consumer)
    while await consumer.pass_once():
        pass
    assert [one.published_to_pubsub for one in await checks.events()] == [False], "it has no place in the feed yet"
    await work_off(consumer, feeds)
    assert [one.published_to_pubsub for one in await checks.events()] == [True]


def test_no_margin_event_starts_a_check() -> None:
    """Or there would be no end."""
    handler = MarginSync(None, Wakes(), margin_check)  # type: ignore[arg-type]
    assert not set(handler.types) & set(published.InTheFeed().types)
