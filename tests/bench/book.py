"""The margin book: screening it, a tick's way to committed transitions, its cold start; and margin checks by HTTP.

The book is measured in this process, on databases of its own that the stack's worker does not know, beside one SQL
statement that does the same job on a copy of the same database. Nobody numbers their events meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from time import perf_counter
from typing import Any

import psutil
import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url
from temporalio.testing import ActivityEnvironment

from activities.book.messages import Revalued, RevalueGroup
from activities.book.screen import screen, weights
from activities.book.steps import BookActivities
from db import migrate
from db.doorbell import Doorbell
from db.engine import Role, create_engine
from db.ids import new_id
from tests.bench.book_sql import LEVELS, LOAD, SETTLE, TICK
from tests.bench.escrows import Bare
from tests.bench.load import Arrival, Latencies, arrivals, open_loop
from tests.bench.report import Row
from tests.bench.stack import Bench, bare_worker

SECTION = "The margin book"
ACCOUNTS, ACCOUNTS_QUICK = 1_000_000, 50_000
SCREENS = 15
CHECKS_PER_SECOND = 20
WARM_UP_SECONDS = 3.0
BOOK, COPY = "bench_book", "bench_book_sql"
#: A tick after another: ETH by so much of what it was at first; the aims are for a million accounts.
TICKS = {"-1 % ETH": ("2970", 100), "-30 % ETH": ("2100", 3_000)}
AIMS = {"screen": 5, "cold": 8_000, "check": 60}
STATEMENT = "one SQL statement"


async def measure(bench: Bench, _: int) -> list[Row]:
    """Once: a million accounts take minutes to load, and a tick is told only once."""
    count = ACCOUNTS_QUICK if bench.quick else ACCOUNTS
    rows = await _checks(bench)
    try:
        await asyncio.to_thread(_load, bench, count)
        rows += await _book(bench, count)
    finally:
        await asyncio.to_thread(_drop, bench)
    return rows


async def _book(bench: Bench, count: int) -> list[Row]:
    url = _url(bench, BOOK)
    engine = create_engine(url, Role.ENGINE, pool_size=8)
    book = BookActivities(engine, Doorbell(engine))
    before = psutil.Process().memory_info().rss
    try:
        cold, _ = await _timed(lambda: _revalue(book))
        memory = (psutil.Process().memory_info().rss - before) / count
        statement = await asyncio.to_thread(_statement, _url(bench, COPY), LEVELS)
        screened = await asyncio.to_thread(_screens, book, await book.ground())
        rows = [
            _row(f"screen of {count:,} accounts × 4, every group in turn", screened, statement, AIMS["screen"]),
            _row(f"cold start: {count:,} accounts × 4 read and screened", [cold], statement, AIMS["cold"]),
            Row(SECTION, "memory of the process, each account", "bytes", memory, lower=True),
        ]
        for name, (price, aim) in TICKS.items():
            for each in (BOOK, COPY):
                await asyncio.to_thread(_price, _url(bench, each), price)
            meter = bench.meter.read()
            took, ends = await _timed(lambda: _revalue(book))
            moved = sum(end.transitions for end in ends)
            cpu_ms = bench.meter.since(meter).per(max(1, moved))
            statement = await asyncio.to_thread(_statement, _url(bench, COPY), TICK)
            rows.append(_row(f"tick of {name} to {moved:,} committed transitions", [took], statement, aim, cpu_ms))
            if await asyncio.to_thread(_levels, url) != await asyncio.to_thread(_levels, _url(bench, COPY)):
                bench.warnings.append(f"after {name}, the book and the statement told different levels")
        return rows
    finally:
        await engine.dispose()


async def _revalue(book: BookActivities) -> list[Revalued]:
    """A round, as ``BookWorkflow`` has it."""
    plan = await ActivityEnvironment().run(book.plan)
    steps = (ActivityEnvironment().run(book.revalue, RevalueGroup(shards=shards)) for shards in plan.groups)
    return list(await asyncio.gather(*steps))


def _screens(book: BookActivities, ground: Any) -> list[float]:
    """Milliseconds of each screen of all groups."""
    took = []
    for _ in range(SCREENS):
        began = perf_counter()
        for part in book.parts:
            screen(part.columns, weights(part.columns.symbols, ground.market))
        took.append((perf_counter() - began) * 1000)
    return took


async def _timed(work: Callable[[], Awaitable[list[Revalued]]]) -> tuple[float, list[Revalued]]:
    began = perf_counter()
    done = await work()
    return (perf_counter() - began) * 1000, done


def _row(
    name: str, measured: list[float], statement: float, aim: int, cpu_ms: Mapping[str, float] | None = None
) -> Row:
    value = median(measured)
    return Row(
        SECTION,
        name,
        "ms",
        value,
        measured if len(measured) < SCREENS else (min(measured), max(measured)),
        baseline=STATEMENT,
        baseline_value=statement,
        aim=f"≤ {aim:,}",
        met=value <= aim,
        lower=True,
        cpu_ms=cpu_ms or {},
    )


async def _checks(bench: Bench) -> list[Row]:
    """``POST /margin/health`` with positions, each leaving its snapshot, beside a workflow with nothing behind it."""
    api, bare = "POST /margin/health", "bare workflow"
    seconds = bench.window(20.0)
    found: dict[str, Latencies] = {}
    async with bare_worker(bench):
        base = Bare(bench)
        for kind, work in ((bare, base.create), (api, lambda number: _check(bench, number))):
            instants = arrivals(CHECKS_PER_SECOND, WARM_UP_SECONDS + seconds, seed=7)
            planned = [
                Arrival(at, lambda n=n, work=work: work(n), kind)  # type: ignore[misc]
                for n, at in enumerate(instants, start=700_000)
            ]
            found |= await open_loop(bench.meter, planned, warm_up_seconds=WARM_UP_SECONDS, seconds=seconds)
    return [
        Row(
            SECTION,
            f"{api} at {CHECKS_PER_SECOND}/s, snapshot persisted, p{percent}",
            "ms",
            found[api].percentile(percent),
            baseline=f"{bare} started",
            baseline_value=found[bare].percentile(percent),
            aim=f"≤ {AIMS['check']}" if percent == 95 else None,
            met=found[api].percentile(percent) <= AIMS["check"] if percent == 95 else None,
            lower=True,
            errors=found[api].errors.total if percent == 50 else 0,
            note=next(iter(found[api].errors.seen), ""),
        )
        for percent in (50, 95)
    ]


async def _check(bench: Bench, number: int) -> None:
    chance = random.Random(number)
    body = {
        "user_id": f"bench-{number % 500}",
        "collateral_positions": {"ETH": f"{chance.uniform(1, 20):.6f}", "BTC": f"{chance.uniform(0.1, 1):.6f}"},
        "borrow_positions": {"USDC": f"{chance.uniform(1_000, 20_000):.2f}"},
    }
    await bench.http.post("/api/v1/margin/health", body, key=str(new_id()))


def _load(bench: Bench, count: int) -> None:
    """The database of the book and its copy. Triggers and foreign keys sleep while rows are made set by set."""
    with psycopg.connect(_url(bench, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(BOOK)))
    url = _url(bench, BOOK)
    migrate.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for setting in ("session_replication_role = replica", "synchronous_commit = off", "statement_timeout = 0"):
            connection.execute(f"SET {setting}".encode())
        connection.execute(
            "INSERT INTO tenants (tenant_id, name) VALUES (%s, 'bench') ON CONFLICT DO NOTHING", [bench.tenant]
        )
        prices = {"BTC": "60000", "DAI": "1", "ETH": "3000", "USDC": "1", "USDT": "1"}
        for asset, price in prices.items():
            _priced(connection, asset, price)
        for statement in LOAD.split(";"):
            connection.execute(statement.encode(), {"tenant": bench.tenant, "count": count})
        connection.execute("ANALYZE")
        connection.execute(SETTLE.encode())
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
    with psycopg.connect(_url(bench, "postgres"), autocommit=True) as connection:
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        connection.execute(made.format(sql.Identifier(COPY), sql.Identifier(BOOK)))


def _price(url: str, eth: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        _priced(connection, "ETH", eth)


def _priced(connection: psycopg.Connection[Any], asset: str, price: str) -> None:
    """A tick that changes one price."""
    connection.execute(
        "WITH t AS (INSERT INTO price_ticks (refresh_id, refreshed_at) VALUES (uuidv7()::text, now()) RETURNING tick)"
        " INSERT INTO prices (asset, tick, mid, low, high, quality, confirmed, as_of, sources, refreshed_at,"
        " fresh_until, ttl_seconds) SELECT %(asset)s, tick, p, p, p, 'good', true, now(), '[]', now(),"
        " now() + interval '1 day', 5 FROM t, (SELECT %(price)s::numeric AS p) AS said"
        " ON CONFLICT (asset) DO UPDATE SET tick = excluded.tick, mid = excluded.mid, low = excluded.low,"
        " high = excluded.high, as_of = excluded.as_of",
        {"asset": asset, "price": price},
    )


def _statement(url: str, statement: str) -> float:
    """How long one statement takes, in milliseconds."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET work_mem = '256MB'")
        began = perf_counter()
        connection.execute(statement.encode())
        return (perf_counter() - began) * 1000


def _levels(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        query = "SELECT told_level, count(*), sum(hashint8(account_no)) FROM margin_accounts GROUP BY 1 ORDER BY 1"
        return connection.execute(query).fetchall()


def _drop(bench: Bench) -> None:
    with psycopg.connect(_url(bench, "postgres"), autocommit=True) as connection:
        for name in (BOOK, COPY):
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _url(bench: Bench, database: str) -> str:
    return make_url(bench.database_url).set(database=database).render_as_string(hide_password=False)
