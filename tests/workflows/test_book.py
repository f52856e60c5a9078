"""The margin book on the real server: from a price in a file to events in the feed; killed in the middle; woken."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from temporalio.client import Client

from activities.vendors.sources import price_desk
from crew import create_relay, create_worker
from db.engine import transaction
from db.ids import new_id
from db.outbox import MARGIN_TOPIC
from domain.ids import BOOK_WORKFLOW_ID
from kit.pricing import manual_only
from tests.booking import Booking, booking
from tests.e2e.stack import ROOT
from tests.polling import eventually
from tools.deployment import Build, make_current
from tools.local.postgres import EmbeddedPostgres
from tools.local.temporal import TemporalDevServer
from workflows.book import BookAuditWorkflow, BookRun, BookWatchWorkflow, BookWorkflow
from workflows.prices import PriceRefreshWorkflow, RefreshPrices

PRICES = 'BTC = "60000"\nDAI = "1"\nETH = "{eth}"\nUSDC = "1"\nUSDT = "1"\n'


@pytest.fixture
async def desk(postgres: EmbeddedPostgres) -> AsyncIterator[Booking]:
    async with booking(postgres) as made:
        yield made


async def feed(desk: Booking) -> list[tuple[str, str]]:
    """Margin events in the feed, in its order."""
    rows = await desk.sql(
        "SELECT data ->> 'user_id' AS user_id, type FROM outbox WHERE topic = :topic AND position IS NOT NULL"
        " ORDER BY position",
        topic=MARGIN_TOPIC,
    )
    return [(row.user_id, row.type) for row in rows]


async def test_a_price_in_a_file_reaches_the_right_accounts(desk: Booking, temporal: Client, tmp_path: Path) -> None:
    file, queue = tmp_path / "prices.toml", f"book-{new_id()}"
    file.write_text(PRICES.format(eth=3010))
    prices = price_desk(manual_only(file))
    debts = {"safe": "1000", "fine": "1600", "warned": "2000", "called": "2250"}
    for user, debt in debts.items():
        await desk.account(user, {"ETH": "1"}, {"USDC": debt})
    worker = create_worker(
        temporal, queue, "only", tenants=desk.tenants, engine=desk.engine, deployment=queue, prices=prices
    )
    relay = asyncio.create_task(create_relay(temporal, queue, desk.url, engine=desk.engine).run())

    async def refresh(eth: int) -> None:
        file.write_text(PRICES.format(eth=eth))
        await temporal.execute_workflow(
            PriceRefreshWorkflow.run, RefreshPrices(), id=f"refresh-{new_id()}", task_queue=queue
        )

    async def all_done() -> bool:
        rows = await desk.sql("SELECT min(done_tick) >= (SELECT max(tick) FROM prices) AS done FROM margin_book")
        waiting = await desk.sql("SELECT count(*) AS n FROM outbox WHERE position IS NULL")
        return bool(rows[0].done) and waiting[0].n == 0

    run = temporal.get_workflow_handle(BOOK_WORKFLOW_ID)
    async with worker:
        await make_current(temporal, Build(queue, "only"))
        await refresh(3010)
        await eventually(all_done, limit_seconds=30)
        assert await desk.told() == {"safe": 0, "fine": 0, "warned": 1, "called": 2}
        versions = await desk.sql("SELECT version FROM margin_accounts WHERE user_id IN ('safe', 'warned')")
        await refresh(2850)
        await eventually(all_done, limit_seconds=30)
        # 0.83 · 2,850 = 2,365.5: 1.478 over 1,600, 1.183 over 2,000 and 1.051 over 2,250.
        assert await desk.told() == {"safe": 0, "fine": 1, "warned": 2, "called": 2}
        assert sorted(await feed(desk)) == [
            ("called", "margin_call"),
            ("fine", "margin_warning"),
            ("warned", "margin_call"),
            ("warned", "margin_warning"),
        ]
        same = await desk.sql("SELECT version FROM margin_accounts WHERE user_id IN ('safe', 'warned')")
        assert len(set(same) & set(versions)) == 1, "who is not told anything is not written either"
        audited = await temporal.execute_workflow(BookAuditWorkflow.run, id=f"audit-{new_id()}", task_queue=queue)
        assert (audited.accounts, audited.disagreeing) == (4, 0)
        await run.terminate("over")
    relay.cancel()
    await asyncio.gather(relay, return_exceptions=True)


@contextmanager
def process(address: str, queue: str, url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        command = [sys.executable, "-m", "tests.book_worker", address, queue, url]
        started = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            yield started
        finally:
            started.kill()
            started.wait(10)


async def test_a_worker_killed_in_the_middle_of_a_tick(
    desk: Booking, temporal: Client, temporal_server: TemporalDevServer, tmp_path: Path
) -> None:
    """Some accounts were told when it died, some were not: in the end all are, and each once."""
    queue, log, count = f"book-{new_id()}", tmp_path / "worker.log", 3_000
    await desk.sql(
        "INSERT INTO margin_accounts (tenant_id, user_id) SELECT :tenant, 'user-' || n FROM generate_series(1, :n) n",
        tenant=desk.tenant,
        n=count,
    )
    await desk.sql(
        "INSERT INTO margin_positions (tenant_id, account_no, side, asset, origin, amount_minor)"
        " SELECT tenant_id, account_no, side, asset, 'declared', amount FROM margin_accounts,"
        " (VALUES ('collateral', 'ETH', 1e18), ('borrow', 'USDC', 2000e6)) AS p (side, asset, amount)"
    )

    async def told() -> int:
        return int((await desk.sql("SELECT count(*) AS n FROM margin_events"))[0].n)

    async def some() -> bool:
        return await told() > 0

    async def everybody() -> bool:
        return await told() == count

    with process(temporal_server.address, queue, desk.url, log) as first:
        await make_current(temporal, Build(queue, "only"))
        async with transaction(desk.engine) as holder:
            # One group cannot end while this row is held, so the tick is not over when the worker dies.
            await holder.execute(text("SELECT FROM margin_accounts WHERE user_id = 'user-77' FOR UPDATE"))
            run = await temporal.start_workflow(
                BookWorkflow.run, BookRun(), id=f"book-{new_id()}", task_queue=queue, start_signal="ticked"
            )
            await eventually(some, limit_seconds=30)
            first.kill()
            first.wait(10)
        assert await told() < count
    with process(temporal_server.address, queue, desk.url, log):
        await eventually(everybody, limit_seconds=60)

        async def revalued() -> bool:
            rows = await desk.sql("SELECT min(done_tick) >= (SELECT max(tick) FROM prices) AS done FROM margin_book")
            return bool(rows[0].done)

        await eventually(revalued, limit_seconds=30)
        await run.terminate("over")
    assert len(set(await desk.events())) == len(await desk.events()) == count
    assert set((await desk.told()).values()) == {1}
    assert (await desk.audit()).disagreeing == 0


async def test_a_tick_that_nobody_heard_of_is_found(desk: Booking, temporal: Client) -> None:
    queue = f"book-{new_id()}"
    await desk.account("user", {"ETH": "1"}, {"USDC": "2000"})
    worker = create_worker(temporal, queue, "only", tenants=desk.tenants, engine=desk.engine, deployment=queue)

    async def watched() -> bool:
        return await temporal.execute_workflow(BookWatchWorkflow.run, id=f"watch-{new_id()}", task_queue=queue)

    async def revalued() -> bool:
        return await desk.told() == {"user": 1}

    async def seen() -> bool:
        """The users are told a moment before the book says that it has seen the tick."""
        rows = await desk.sql("SELECT 1 FROM margin_book WHERE done_tick < (SELECT max(tick) FROM price_ticks)")
        return not rows

    async with worker:
        await make_current(temporal, Build(queue, "only"))
        # The first revaluation: a book that never was one is behind by itself.
        await desk.revalue()
        await desk.sql("UPDATE margin_accounts SET told_level = 0, warning_told_at = NULL")
        await desk.price(ETH="2990")
        assert not await watched(), "it may only just have come"
        with psycopg.connect(desk.url) as connection:
            connection.execute("UPDATE price_ticks SET recorded_at = recorded_at - interval '1 minute'")
        assert await watched()
        await eventually(revalued)
        await eventually(seen)
        assert not await watched()
        await temporal.get_workflow_handle(BOOK_WORKFLOW_ID).terminate("over")
