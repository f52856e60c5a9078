"""Settlement commands per second, from the first that is taken to the last that is settled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from secrets import token_hex
from statistics import median
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg

from db.ids import new_id
from domain.errors import Unavailable
from tests.bench.escrows import Direct, buyer
from tests.bench.load import Done, Errors, Throughput, closed_loop
from tests.bench.preload import ASSET, WIDE
from tests.bench.report import Row, throughput_row
from tests.bench.stack import Bench
from workflows.client import TransferClient
from workflows.ledger import TransferKind, TransferRequest

SECTION = "Settlement commands, taken in requests of 1,000 lines and settled by workflows"
LEDGER_COMMANDS, ESCROW_COMMANDS, FUNDINGS = 10_000, 400, 250
LEDGER_AIM, ESCROW_AIM = 1_000, 80
LINES = 1_000
CALLERS = 30
PREPARING = 12
LIMIT_SECONDS = 90.0
TRIES = 5
PAUSE_SECONDS = 0.1
INGEST = "/api/v1/commands/ingest"

_STANDING = """
SELECT count(*) FILTER (WHERE finished_at IS NOT NULL), count(*) FILTER (WHERE status = 'SETTLED'),
       extract(epoch FROM max(finished_at) - min(received_at))::float8
FROM settlement_commands WHERE tenant_id = %s AND command_id LIKE %s
"""


async def measure(bench: Bench, rounds: int) -> list[Row]:
    """Those that move the ledger, those that act on an escrow, and beside each a workflow or an update per command."""
    found: dict[str, list[Throughput]] = {"transfers": [], "ledger": [], "updates": [], "escrow": []}
    for _ in range(rounds):
        found["transfers"].append(await _transfers(bench))
        found["ledger"].append(await _settle(bench, _ledger_lines(bench)))
        found["updates"].append(await _fundings(bench))
        found["escrow"].append(await _settle(bench, await _escrow_lines(bench)))
    return [
        throughput_row(SECTION, "a workflow per deposit, 30 callers", found["transfers"]),
        throughput_row(
            SECTION,
            "commands that move the ledger",
            found["ledger"],
            baseline="a workflow each",
            baseline_value=median(one.rate for one in found["transfers"]),
            at_least=LEDGER_AIM,
        ),
        throughput_row(SECTION, "fundings through EscrowClient, 30 callers", found["updates"]),
        throughput_row(
            SECTION,
            "commands that fund an escrow",
            found["escrow"],
            baseline="EscrowClient",
            baseline_value=median(one.rate for one in found["updates"]),
            at_least=ESCROW_AIM,
        ),
    ]


def _ledger_lines(bench: Bench) -> list[Mapping[str, Any]]:
    """Deposits and transfers in turn, over the wide accounts."""
    count, run = LEDGER_COMMANDS // (5 if bench.quick else 1), token_hex(6)
    return [
        {"command_id": f"{run}-{number}", "asset_symbol": ASSET, "amount": "0.001"}
        | (
            {"kind": "deposit", "account_ref": f"wide-{number % WIDE}"}
            if number % 2
            else {
                "kind": "transfer",
                "account_ref": f"wide-{number % WIDE}",
                "counterparty_ref": f"wide-{(number + 1) % WIDE}",
            }
        )
        for number in range(count)
    ]


async def _escrow_lines(bench: Bench) -> list[Mapping[str, Any]]:
    """A funding for each of as many fresh escrows."""
    count, run = ESCROW_COMMANDS // (5 if bench.quick else 1), token_hex(6)
    return [
        {
            "command_id": f"{run}-{number}",
            "kind": "escrow_fund",
            "account_ref": buyer(number),
            "asset_symbol": ASSET,
            "amount": "0.001",
            "escrow_id": str(escrow_id),
        }
        for number, escrow_id in enumerate(await _fresh(bench, count))
    ]


async def _settle(bench: Bench, lines: Sequence[Mapping[str, Any]]) -> Throughput:
    """Send all the lines, wait until each has its outcome; the database's clock says how long it took."""
    prefix = str(lines[0]["command_id"]).partition("-")[0]
    before = bench.meter.read()
    for start in range(0, len(lines), LINES):
        content = b"\n".join(json.dumps(line).encode() for line in lines[start : start + LINES])
        await bench.http.send(INGEST, content, "application/x-ndjson", key=token_hex(16))
    deadline = monotonic() + LIMIT_SECONDS
    while True:
        finished, settled, seconds = await asyncio.to_thread(_standing, bench, prefix)
        if finished == len(lines) or monotonic() > deadline:
            break
        await asyncio.sleep(PAUSE_SECONDS)
    errors = Errors()
    for _ in range(len(lines) - settled):
        errors.add(RuntimeError(f"a command was not settled within {LIMIT_SECONDS:g} s, or refused"))
    return Throughput(settled, seconds, bench.meter.since(before), errors, [])


def _standing(bench: Bench, prefix: str) -> tuple[int, int, float]:
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        row = connection.execute(_STANDING, [bench.tenant, f"{prefix}-%"]).fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[0]), int(row[1]), float(row[2] or 1.0)


async def _fresh(bench: Bench, count: int) -> list[UUID]:
    """Escrows that wait for their funding."""
    desk, gate = Direct(bench), asyncio.Semaphore(PREPARING)

    async def one(number: int) -> UUID:
        async with gate:
            for _ in range(TRIES):
                # Nothing is measured yet: on a machine that is busy otherwise, an answer may come too late.
                with suppress(Unavailable):
                    return await desk.create(number)
        raise Unavailable("temporal", "the machine is too busy to prepare the measurement")

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def _transfers(bench: Bench) -> Throughput:
    client = TransferClient(bench.client, "holdfast")

    async def deposit(number: int, done: Done) -> None:
        request = TransferRequest(
            tenant_id=bench.tenant,
            transfer_id=new_id(),
            kind=TransferKind.DEPOSIT,
            account=f"wide-{number % WIDE}",
            asset=ASSET,
            amount_minor=1_000,
        )
        await client.transfer(request, summary="a bench's deposit")
        done(1)

    return await closed_loop(bench.meter, deposit, callers=CALLERS, warm_up_seconds=1.5, seconds=bench.window(5.0))


async def _fundings(bench: Bench) -> Throughput:
    """Fundings alone, of escrows made beforehand, until they are used up or the time is."""
    seconds = bench.window(5.0)
    numbered = iter(list(enumerate(await _fresh(bench, FUNDINGS // (2 if bench.quick else 1)))))
    desk = Direct(bench)
    before, began = bench.meter.read(), monotonic()
    done, errors = 0, Errors()

    async def call() -> None:
        nonlocal done
        for number, escrow_id in numbered:
            if monotonic() > began + seconds:
                return
            try:
                await desk.move(escrow_id, number, 1)
                done += 1
            except Exception as error:  # noqa: BLE001 - counted, and told in the report
                errors.add(error)

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    return Throughput(done, monotonic() - began, bench.meter.since(before), errors, [])
