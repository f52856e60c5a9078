"""Chains: a backfill of a contract full of events, beside a plain loop of web3.py; and how soon the live end tells.

The node shares the two cores with everything else. Every check is on: hashes, parents, numbers without a gap, the
contract's counter at the end of each piece, and the look over all of it at the end.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from sqlalchemy import text

from db.chain import sources
from db.engine import tenant_transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent, append
from domain.chain import ChainKind, Source
from domain.ids import relayer_workflow_id
from kit.clock import now
from tests.anvil import Chain, running
from tests.bench import decoding
from tests.bench.flooding import OPTIONS, Flood, deployed
from tests.bench.load import Errors, Latencies, Throughput
from tests.bench.report import Row, throughput_row
from tests.bench.stack import CHAIN, Bench

SECTION = "Chains: events from a node to rows, every check on, and from the head to the outbox"
EVENTS, EVENTS_QUICK = 1_000_000, 60_000
#: So many events the plain loop gets, which is slow.
PLAIN_EVENTS, PLAIN_BLOCKS = 20_000, 16
CHUNK_BLOCKS = 100
LIMIT_SECONDS, POLL_SECONDS = 900.0, 0.5
#: Blocks of one event each, which the live end tells of.
BLOCKS, BLOCKS_QUICK, BLOCK_SECONDS = 300, 40, 0.1
AIM_EVENTS, AIM_MIB, AIM_P99_MS = 50_000, 300, 500
PLAIN = "a plain get_logs loop of web3.py, decoded, kept nowhere"


async def measure(bench: Bench, rounds: int) -> list[Row]:
    """The plain loop and the backfill in turn over the same events, then the live end of another contract."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        with running(kept, *OPTIONS, port=bench.chain_port) as chain:
            flood = await asyncio.to_thread(deployed, chain, kept)
            events = EVENTS_QUICK if bench.quick else EVENTS
            last = await asyncio.to_thread(flood.mine, events)
            rows = await _backfills(bench, flood, last, rounds)
        # Another node: the live end is not to be measured beside what a million events left in the first.
        with running(kept, *OPTIONS, port=bench.chain_port) as chain:
            rows += await _live(bench, await asyncio.to_thread(deployed, chain, kept), chain)
    return [*rows, *(replace(row, section=SECTION) for row in decoding.measure(rounds))]


async def _backfills(bench: Bench, flood: Flood, last: int, rounds: int) -> list[Row]:
    plain, found, peaks = [], list[Throughput](), []
    for _ in range(rounds):
        plain.append(await asyncio.to_thread(_plain, flood, last))
        through, peak = await _backfill(bench, flood, last)
        found.append(through)
        peaks.append(peak)
    count = int(found[0].operations)
    return [
        Row(SECTION, PLAIN, "per s", median(plain), plain),
        throughput_row(
            SECTION,
            f"{count:,} events backfilled and verified",
            found,
            baseline=PLAIN,
            baseline_value=median(plain),
            at_least=AIM_EVENTS,
        ),
        Row(
            SECTION,
            "memory of the worker meanwhile, at most",
            "MiB",
            max(peaks),
            peaks,
            aim=f"< {AIM_MIB}",
            met=max(peaks) < AIM_MIB,
            lower=True,
        ),
    ]


def _plain(flood: Flood, last: int) -> float:
    """Events per second: ranges one after the other, each log decoded by the library."""
    contract = flood.chain.w3.eth.contract(flood.chain.w3.to_checksum_address(flood.address), abi=flood.abi)
    began, found, first = time.monotonic(), 0, flood.start_block
    while first <= last and found < PLAIN_EVENTS:
        end = min(first + PLAIN_BLOCKS - 1, last)
        logs = contract.events.Released().get_logs(from_block=first, to_block=end)
        found, first = found + len(logs), end + 1
    return found / (time.monotonic() - began)


async def _backfill(bench: Bench, flood: Flood, last: int) -> tuple[Throughput, float]:
    """From the job's beginning to its end, as the job says it; and the worker's memory at its largest."""
    source = await followed(bench, flood)
    body = {"relayer_id": source.relayer_id, "to_block": last, "chunk_blocks": CHUNK_BLOCKS}
    meter, began, errors, peak = bench.meter.read(), time.monotonic(), Errors(), 0.0
    answer = await bench.http.post("/api/v1/monitoring/backfill/start", body, key=str(new_id()))
    job: dict[str, Any] = json.loads(answer)
    while job["status"] not in ("completed", "failed") and time.monotonic() < began + LIMIT_SECONDS:
        await asyncio.sleep(POLL_SECONDS)
        peak = max(peak, bench.meter.memory_mib("worker")["worker"])
        job = json.loads(await bench.http.get(f"/api/v1/monitoring/backfill/{job['job_id']}"))
    took, usage = time.monotonic() - began, bench.meter.since(meter)
    if job["status"] != "completed" or not (job["verification"] or {}).get("agrees"):
        errors.seen[f"the job is {job['status']}: {job['error']}"] += 1
    await _forget(bench, source)
    return Throughput(job["events_written"], took, usage, errors, []), peak


async def followed(bench: Bench, flood: Flood) -> Source:
    """The contract as a source of the bench's tenant, which has no live end until that is told."""
    address = bytes.fromhex(flood.address.removeprefix("0x"))
    wanted = Source(
        source_id=0,
        tenant_id=bench.tenant,
        # Each round follows it anew.
        relayer_id=f"{CHAIN}:{flood.address.lower()}:{new_id()}",
        chain=CHAIN,
        kind=ChainKind.EVM,
        network=f"eip155:{flood.chain.chain_id}",
        addresses=(address,),
        start_block=flood.start_block,
        sequenced=True,
        settles=False,
    )
    async with tenant_transaction(bench.engine, bench.tenant) as connection:
        return await sources.register(connection, wanted, follow_from=flood.start_block, last_sequence=0)


async def _forget(bench: Bench, source: Source) -> None:
    """Make room: what a round wrote is not to slow the next one down. The owner's, because nobody else may."""
    await asyncio.to_thread(_truncate, bench.database_url, source.source_id)


def _truncate(url: str, source_id: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for table in ("chain_events", "chain_blocks"):
            connection.execute(f"DELETE FROM {table} WHERE source_id = %s", [source_id])
            connection.execute(f"VACUUM ANALYZE {table}")


async def _live(bench: Bench, flood: Flood, chain: Chain) -> list[Row]:
    """From a block that the node has to the event in the outbox, by the clocks of one machine."""
    source = await followed(bench, flood)
    subject = relayer_workflow_id(source.relayer_id)
    facts = {"relayer_id": source.relayer_id, "chain": CHAIN, "start_block": source.start_block, "settles": False}
    told = OutboxEvent(new_id(), SETTLEMENT_TOPIC, "chain.source_registered", subject, now(), facts)
    async with tenant_transaction(bench.engine, bench.tenant) as connection:
        await append(connection, bench.tenant, [told])
    blocks = BLOCKS_QUICK if bench.quick else BLOCKS
    mined = await asyncio.to_thread(_mine, flood, chain, blocks)
    written = await _written(bench, subject, blocks)
    errors = Errors()
    errors.seen["an event was not told"] += len(mined) - len(written)
    waits = [written[sequence] - at for sequence, at in mined.items() if sequence in written]
    latencies = Latencies(waits, errors)
    name = f"head to outbox, a block every {BLOCK_SECONDS * 1000:.0f} ms"
    return [_row(f"{name}, p50", latencies, 50), _row(f"{name}, p99", latencies, 99, aim_ms=AIM_P99_MS)]


def _mine(flood: Flood, chain: Chain, blocks: int) -> dict[int, float]:
    """When each block with one event was there, by the event's number."""
    found = {}
    data = chain.w3.eth.contract(abi=flood.abi).encode_abi("flood", [1])
    sent = {"from": chain.accounts[0], "to": flood.address, "data": data, "gas": hex(200_000)}
    chain.transact(sent)
    time.sleep(2.0)
    for number in range(2, blocks + 2):
        chain.transact(sent)
        found[number] = time.time()
        time.sleep(BLOCK_SECONDS)
    return found


async def _written(bench: Bench, subject: str, wanted: int) -> dict[int, float]:
    """When each event was written into the outbox, by its number."""
    found: dict[int, float] = {}
    limit = time.monotonic() + 30
    while len(found) < wanted and time.monotonic() < limit:
        await asyncio.sleep(0.5)
        async with tenant_transaction(bench.engine, bench.tenant) as connection:
            rows = await connection.execute(
                text(
                    "SELECT CAST(data ->> 'sequence' AS bigint) AS sequence, extract(epoch FROM recorded_at) AS at"
                    " FROM outbox WHERE subject = :subject AND type = 'chain.event_applied'"
                ),
                {"subject": subject},
            )
            found = {row.sequence: float(row.at) for row in rows if row.sequence > 1}
    return found


def _row(name: str, measured: Latencies, percent: int, *, aim_ms: int | None = None) -> Row:
    value = measured.percentile(percent)
    return Row(
        SECTION,
        name,
        "ms",
        value,
        [value],
        aim=None if aim_ms is None else f"< {aim_ms}",
        met=None if aim_ms is None else value < aim_ms,
        lower=True,
        errors=measured.errors.total if percent == 50 else 0,
    )
