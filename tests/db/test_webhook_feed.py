"""From the feed to deliveries: once each, for who wants them, in the commit that moves the cursor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import jsonschema
import pytest
from sqlalchemy import event as sa_event
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.consuming import Consumer
from activities.webhooks import fanout
from activities.webhooks.fanout import Fanout, FanoutConsumer
from db.engine import transaction
from db.identity import create_tenant
from db.ids import new_id
from db.outbox import PRICES_TOPIC, OutboxEvent, append, number_committed
from domain.errors import Unavailable
from domain.ids import PLATFORM_TENANT
from domain.webhooks.catalogue import CATALOGUE
from kit.clock import now
from tests.databases import migrated_database
from tests.db.populated import populate, publish
from tests.db.raw import sql
from tests.hooks import Hooks, Woken, event, hooking, subscribe
from tests.prices import set_prices
from tools.local.postgres import EmbeddedPostgres
from workflows.webhooks.client import wake_endpoint


@pytest.fixture
def hooks_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated_database(postgres) as url:
        yield url


@pytest.fixture
async def hooks(hooks_url: str) -> AsyncIterator[Hooks]:
    async with hooking(hooks_url) as made:
        yield made


async def test_who_wants_it_gets_it_and_nobody_else(hooks: Hooks) -> None:
    everything = await hooks.subscribe("https://a.example/")
    escrows = await hooks.subscribe("https://b.example/", "escrow.*")
    alices = await hooks.subscribe("https://c.example/", user_id="alice")
    stranger = new_id()
    async with transaction(hooks.tenants) as connection:
        await create_tenant(connection, new_tenant=stranger, name="stranger")
    theirs = await subscribe(hooks.tenants, stranger, "https://d.example/")
    told = await hooks.tell(event(1, buyer="eve"), event(2, "ledger.deposited", account="alice"))
    got = await hooks.sql("SELECT subscription_id, message_id FROM webhook_deliveries ORDER BY sequence")
    assert [tuple(row) for row in got] == [
        (everything.id, told[0]),
        (escrows.id, told[0]),
        (everything.id, told[1]),
        (alices.id, told[1]),
    ]
    assert theirs.id not in {row[0] for row in got}
    assert {wake.workflow_id for wake in hooks.woken.wakes} == {
        f"webhook:{hook.id}" for hook in (everything, escrows, alices)
    }


async def test_what_is_everybodys_has_to_be_named(hooks: Hooks) -> None:
    named = await hooks.subscribe("https://a.example/", "price.*")
    await hooks.subscribe("https://b.example/", "*")
    price = OutboxEvent(new_id(), PRICES_TOPIC, "price.changed", "price:ETH", now(), {"asset": "ETH"})
    await hooks.tell(price, tenant=PLATFORM_TENANT)
    got = await hooks.sql("SELECT tenant_id, subscription_id FROM webhook_deliveries")
    assert [tuple(row) for row in got] == [(hooks.tenant, named.id)]


async def test_what_happened_before_an_endpoint_was_there_is_not_for_it(hooks: Hooks) -> None:
    async with transaction(hooks.engine) as connection:
        await append(connection, hooks.tenant, [event(1)])
    await hooks.subscribe("https://a.example/")
    [later] = await hooks.tell(event(2))
    assert await hooks.sql("SELECT message_id FROM webhook_deliveries") == [(later,)]


async def test_an_absence_leaves_the_page_for_the_next_attempt(hooks: Hooks) -> None:
    """Neither the rows nor the cursor: a page that is tried again is written once."""
    await hooks.subscribe("https://a.example/")

    class Away(Woken):
        async def wake(self, wake: object) -> None:
            raise Unavailable("temporal", "away")

    async with transaction(hooks.engine) as connection:
        await append(connection, hooks.tenant, [event(1)])
        await number_committed(connection, limit=10)
    consumer = consumer_of(hooks, Away())
    with pytest.raises(Unavailable):
        await consumer.pass_once()
    await consumer._leadership.release()
    assert await hooks.sql("SELECT 1 FROM webhook_deliveries") == []
    await hooks.fan_out()
    await hooks.fan_out()
    assert len(await hooks.sql("SELECT 1 FROM webhook_deliveries")) == 1


async def test_pages_close_together_wake_once(hooks: Hooks) -> None:
    await hooks.subscribe("https://a.example/")
    async with transaction(hooks.engine) as connection:
        await append(connection, hooks.tenant, [event(number) for number in range(6)])
        await number_committed(connection, limit=10)
    consumer = consumer_of(hooks, hooks.woken, page_events=1)
    while await consumer.pass_once():
        pass
    await consumer._leadership.release()
    assert len(hooks.woken.wakes) == 1
    assert len(await hooks.sql("SELECT 1 FROM webhook_deliveries")) == 6


async def test_without_endpoints_no_event_is_read(hooks: Hooks) -> None:
    async with transaction(hooks.engine) as connection:
        await append(connection, hooks.tenant, [event(number) for number in range(6)])
        await number_committed(connection, limit=10)
    statements: list[str] = []

    def heard(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    sa_event.listen(hooks.engine.sync_engine, "after_cursor_execute", heard)
    await hooks.fan_out()
    assert not [each for each in statements if "FROM outbox WHERE position >" in each and "data" in each]


async def test_every_event_is_as_the_catalogue_says(tenants_engine: AsyncEngine, engine: AsyncEngine) -> None:
    """Of everything that the code leaves: its type is known, and its data are as described."""
    await set_prices(engine, ETH=2_000, USDC=1)
    tenant = await populate(tenants_engine)
    await publish(engine, tenant)
    async with transaction(engine) as connection:
        rows = await sql(connection, "SELECT DISTINCT ON (type) type, data FROM outbox ORDER BY type, outbox_id DESC")
    known = [row for row in rows if not row.type.startswith("test.")]
    assert len(known) > 10
    assert {row.type for row in known} - CATALOGUE.keys() == set()
    for row in known:
        schema = json.loads(json.dumps(CATALOGUE[row.type].schema))
        jsonschema.validate(row.data, schema, format_checker=jsonschema.FormatChecker())


def consumer_of(hooks: Hooks, woken: Woken, **how: int) -> Consumer:
    handler = Fanout(hooks.engine, woken, wake_endpoint)
    return FanoutConsumer(hooks.engine, hooks.url, fanout.CONSUMER, handler, **how)
