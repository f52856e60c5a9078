"""Postings per second through the ledger, beside ``pgbench -N`` on the same server.

Callers are coroutines of one process, which share its ``PostingGroup`` as a worker's activities do: every posting is a
transfer with its receipt, audit record and event. Batches are 500 transfers in one commit, which leave one of each. The
worker's relay and sealer are at work meanwhile, and what they are behind by at the end is told.
"""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from db.audit import AuditRecord, Origin
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.ledger import post_each
from db.ledger.group import Entry, PostingGroup
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import Left, leave
from domain.ledger import Posting, transfer
from kit.clock import now
from tests.bench.load import Done, Throughput, closed_loop
from tests.bench.preload import ASSET, HOT, WIDE, unsealed
from tests.bench.report import Row, throughput_row
from tests.bench.stack import Bench
from tools.local.postgres import binaries

SECTION = "Postings through the ledger: transfers with receipt, audit and event, while relay and sealer work"
CALLERS = (16, 64, 256)
BATCH = 500
BATCH_CALLERS = 2
AIMS: Mapping[object, int] = {16: 5_000, 64: 14_000, 256: 25_000, "batches": 50_000}
ACCOUNTS = {"hot": HOT, "wide": WIDE}
#: The server takes 200 connections, and the stack has its own.
PGBENCH_CLIENTS_MAX = 128
PGBENCH_DATABASE = "pgbench"
PGBENCH_SCALE = 20


async def measure(bench: Bench, rounds: int) -> list[Row]:
    """Everything in turn, ``rounds`` times."""
    await asyncio.to_thread(_prepare_pgbench, bench)
    group = PostingGroup(bench.engine, Doorbell(bench.engine))
    bases: dict[int, list[float]] = {}
    found: dict[tuple[str, object], list[Throughput]] = {}
    for number in range(rounds):
        for callers in CALLERS:
            bases.setdefault(callers, []).append(await asyncio.to_thread(_pgbench, bench, callers))
        for accounts in ACCOUNTS:
            chance = random.Random(number)
            for callers in CALLERS:
                work = _single(bench, group, accounts, chance)
                found.setdefault((accounts, callers), []).append(await _loop(bench, work, callers))
            batches = _batches(bench, accounts, chance)
            found.setdefault((accounts, "batches"), []).append(await _loop(bench, batches, BATCH_CALLERS))
    rows = [
        Row(SECTION, f"pgbench -N, {min(callers, PGBENCH_CLIENTS_MAX)} clients", "per s", median(tps), tps)
        for callers, tps in bases.items()
    ]
    for (accounts, how), measured in found.items():
        base = max(CALLERS) if how == "batches" else how
        name = f"in batches of {BATCH}" if how == "batches" else f"{how} callers"
        rows.append(
            throughput_row(
                SECTION,
                f"{name}, {ACCOUNTS[accounts]:,} accounts",
                measured,
                baseline="pgbench -N",
                baseline_value=median(bases[int(str(base))]),
                at_least=AIMS[how] if accounts == "hot" else None,
            )
        )
    rows += await asyncio.to_thread(_behind, bench)
    return rows


async def _loop(bench: Bench, work: Callable[[int, Done], Any], callers: int) -> Throughput:
    return await closed_loop(bench.meter, work, callers=callers, warm_up_seconds=1.0, seconds=bench.window(3.0))


def _single(bench: Bench, group: PostingGroup, accounts: str, chance: random.Random) -> Callable[[int, Done], Any]:
    async def post(_: int, done: Done) -> None:
        posting = _transfer(accounts, chance)
        await group.post(bench.tenant, Entry([posting], _left(posting)))
        done(1)

    return post


def _batches(bench: Bench, accounts: str, chance: random.Random) -> Callable[[int, Done], Any]:
    async def post(_: int, done: Done) -> None:
        chains = [[_transfer(accounts, chance)] for _ in range(BATCH)]
        async with tenant_transaction(bench.engine, bench.tenant) as connection:
            refusals = await post_each(connection, bench.tenant, chains)
            await leave(connection, bench.tenant, [_left(chains[0][0])])
        done(sum(refusal is None for refusal in refusals))

    return post


def _transfer(accounts: str, chance: random.Random) -> Posting:
    source, target = chance.sample(range(ACCOUNTS[accounts]), 2)
    return transfer(
        f"{accounts}-{source}", f"{accounts}-{target}", ASSET, 1_000, transaction_id=new_id(), effective_at=now()
    )


def _left(posting: Posting) -> Left:
    """What a transfer's step leaves."""
    source, target = posting.legs[0].account, posting.legs[1].account
    name, at = f"transfer:{posting.transaction_id}", posting.effective_at
    facts = {"transaction_id": str(posting.transaction_id), "from": source, "to": target, "asset": ASSET}
    event = OutboxEvent(new_id(), SETTLEMENT_TOPIC, "ledger.transferred", f"account:{source}", at, facts)
    audit = AuditRecord(f"account:{source}", "ledger.transferred", at, Origin(workflow_id=name), facts)
    return Left(name, {"transaction_id": str(posting.transaction_id)}, audit, [event])


def _prepare_pgbench(bench: Bench) -> None:
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [PGBENCH_DATABASE]).fetchone()
        if found is not None:
            return
        connection.execute(f"CREATE DATABASE {PGBENCH_DATABASE}")
    _run_pgbench(bench, ["-i", "-q", "-s", str(PGBENCH_SCALE)])


def _pgbench(bench: Bench, callers: int) -> float:
    """Transactions per second of pgbench's simple update: one row of 2,000,000 updated, one row written."""
    clients = min(callers, PGBENCH_CLIENTS_MAX)
    seconds = max(1, round(bench.window(3.0)))
    said = _run_pgbench(bench, ["-N", "-n", "-c", str(clients), "-j", "2", "-T", str(seconds)])
    found = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
    assert found is not None, said
    return float(found[1])


def _run_pgbench(bench: Bench, arguments: Sequence[str]) -> str:
    url = make_url(bench.database_url)
    where = ["-h", str(url.host), "-p", str(url.port), "-U", str(url.username), PGBENCH_DATABASE]
    done = subprocess.run(
        [str(binaries() / "pgbench"), *arguments, *where], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _behind(bench: Bench) -> list[Row]:
    """How many transactions wait for their seal as the last phase ends."""
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        waiting = unsealed(connection)
    return [Row(SECTION, "transactions not yet sealed at the end", "transactions", waiting, lower=True)]
