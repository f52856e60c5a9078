"""Backfill jobs as workflows over a chain in memory, with the real database and the real Temporal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from temporalio.client import WorkflowExecutionStatus

from activities.chain.filling import FillPace
from activities.chain.ports import ProviderHealth
from db.chain import jobs, sources
from db.chain.jobs import NewJob
from db.engine import tenant_transaction
from db.ids import new_id
from domain.chain import RelayerStatus, Source
from domain.chain.jobs import JobCommand, JobStatus
from domain.errors import Refusal
from domain.ids import backfill_workflow_id
from kit.clock import now
from tests.backfilling import Bench
from tests.chain.memory import CHAIN, MemoryChain, MemoryDesk, followed
from tests.polling import eventually
from workflows.chain.backfill_watch import BackfillRetentionWorkflow, BackfillWatchWorkflow


async def test_a_range_is_filled_and_looked_at_again(bench: Bench) -> None:
    desk = bench.chain(1_000)
    source = await followed(bench.tenants, bench.tenant)
    job_id = await bench.start(source, 0, 999, chunk_blocks=100)
    job = await bench.completed(job_id)
    assert (job.covered_blocks, job.known_blocks, job.events_written) == (1_000, 0, 3_000)
    assert job.verification is not None
    assert job.verification["agrees"]
    assert job.verification["counter"]["value"] == 3_000
    assert job.verification["sequence"] == {
        "contiguous": True,
        "events": 3_000,
        "first": 1,
        "last": 3_000,
        "before": 0,
    }
    assert await bench.stored(source) == list(range(1, 3_001))
    assert await bench.covered(source) == ((0, 999),)
    pieces = await bench.told("chain.backfilled")
    assert [piece["from_block"] for piece in pieces] == sorted(piece["from_block"] for piece in pieces), "in order"
    assert sum(piece["events"] for piece in pieces) == 3_000
    assert pieces[0]["first_sequence"] == 1
    assert sum(last - first + 1 for first, last in desk.fetched) == 1_000, "no block was fetched twice"
    [ended] = await bench.told("backfill.completed")
    assert (ended["events_written"], ended["error"]) == (3_000, None)
    handle = bench.client.get_workflow_handle(backfill_workflow_id(job_id))
    assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED


async def test_who_lied_to_a_job_is_named(bench: Bench) -> None:
    """Nobody follows this chain: what its providers did is written down by the job alone."""

    class Caught(MemoryDesk):
        def health(self) -> Sequence[ProviderHealth]:
            since = datetime(2026, 1, 1, tzinfo=UTC)
            return [ProviderHealth("liar", "accused", since, "event 3 is missing", 7, 12, 4, 1, None)]

    bench.chains[CHAIN] = Caught(MemoryChain(50))
    source = await followed(bench.tenants, bench.tenant)
    await bench.completed(await bench.start(source, 0, 49, chunk_blocks=10))
    [told] = await bench.told("chain.provider_accused")
    assert (told["provider"], told["reason"]) == ("liar", "event 3 is missing")


async def test_a_piece_is_bounded_where_every_header_is_kept(bench: Bench) -> None:
    desk = bench.chain(12_000, density=0)
    source = await followed(bench.tenants, bench.tenant, sequenced=False)
    await bench.completed(await bench.start(source, 0, 11_999, chunk_blocks=12_000))
    assert 1_000 < max(last - first + 1 for first, last in desk.fetched) <= FillPace().whole_blocks


async def test_what_is_covered_costs_nothing_again(bench: Bench) -> None:
    desk = bench.chain(400)
    source = await followed(bench.tenants, bench.tenant)
    await bench.completed(await bench.start(source, 100, 199))
    asked, desk.fetched = desk.requests, []
    job = await bench.completed(await bench.start(source, 110, 190))
    assert (job.covered_blocks, job.known_blocks, job.events_written) == (81, 81, 0)
    assert desk.requests == asked, "a range that is covered asks nobody"
    assert (job.verification or {})["counter"] == {"asked": False}
    job = await bench.completed(await bench.start(source, 50, 250))
    assert (min(desk.fetched)[0], max(desk.fetched)[1]) == (50, 250)
    assert sum(last - first + 1 for first, last in desk.fetched) == 101
    assert (job.covered_blocks, job.known_blocks, job.events_written) == (201, 100, 303)
    assert await bench.stored(source) == list(range(151, 754))


async def test_jobs_that_overlap_share_the_work(bench: Bench) -> None:
    desk = bench.chain(600)
    desk.seconds = 0.02
    source = await followed(bench.tenants, bench.tenant)
    started = [
        await bench.start(source, 0, 399),
        await bench.start(source, 200, 599),
        await bench.start(source, 0, 599),
    ]
    done = [await bench.completed(job_id) for job_id in started]
    assert [job.covered_blocks for job in done] == [400, 400, 600]
    assert sum(job.events_written for job in done) == 1_800
    assert sum(last - first + 1 for first, last in desk.fetched) == 600, "each block once"
    assert await bench.stored(source) == list(range(1, 1_801))


async def test_an_operator_pauses_resumes_cancels_and_retries(bench: Bench) -> None:
    desk = bench.chain(500)
    desk.open.clear()
    desk.held_from = 120
    source = await followed(bench.tenants, bench.tenant)
    job_id = await bench.start(source, 0, 499, chunk_blocks=100)

    async def begun() -> bool:
        return (await bench.job(job_id)).covered_blocks >= 100

    await eventually(begun)
    with pytest.raises(Refusal, match="job_not_paused"):
        await bench.say(job_id, JobCommand.RESUME)
    assert await bench.say(job_id, JobCommand.PAUSE) is JobStatus.PAUSED
    desk.open.set()
    paused = await bench.job(job_id)
    assert (paused.status, paused.eta_at) == (JobStatus.PAUSED, None)
    await asyncio.sleep(0.3)
    assert (await bench.job(job_id)).covered_blocks == paused.covered_blocks, "nothing is written meanwhile"
    desk.open.clear()
    assert await bench.say(job_id, JobCommand.RESUME) is JobStatus.RUNNING
    assert await bench.say(job_id, JobCommand.CANCEL) is JobStatus.CANCELLED
    desk.open.set()
    handle = bench.client.get_workflow_handle(backfill_workflow_id(job_id))
    await handle.result()
    for said in (JobCommand.PAUSE, JobCommand.CANCEL):
        with pytest.raises(Refusal, match="job_over"):
            await bench.say(job_id, said)
    assert await bench.say(job_id, JobCommand.RETRY) is JobStatus.PENDING
    job = await bench.completed(job_id)
    assert (job.attempt, job.covered_blocks) == (2, 500)
    assert await bench.stored(source) == list(range(1, 1_501))
    actions = await bench.sql(
        "SELECT action FROM audit_log WHERE tenant_id = :t AND subject = :s ORDER BY audit_id",
        t=bench.tenant,
        s=backfill_workflow_id(job_id),
    )
    assert [row.action.partition(".")[2] for row in actions] == [
        "paused",
        "resumed",
        "cancelled",
        "retried",
        "completed",
    ]


async def test_a_chain_that_is_away_is_waited_for(bench: Bench) -> None:
    bench.chain(100).away = 3
    source = await followed(bench.tenants, bench.tenant)
    await bench.completed(await bench.start(source, 0, 99))


async def test_a_block_that_is_not_there_fails_the_job_and_one_that_is_not_final_is_waited_for(bench: Bench) -> None:
    desk = bench.chain(100)
    source = await followed(bench.tenants, bench.tenant)
    failed = await bench.until(await bench.start(source, 0, 100), JobStatus.FAILED)
    assert (failed.error or "").startswith("block_not_reached")
    assert [event["error"] for event in await bench.told("backfill.failed")] == [failed.error]
    desk.finalized = 40
    job_id = await bench.start(source, 0, 99)
    await asyncio.sleep(0.3)
    assert (await bench.job(job_id)).covered_blocks == 0
    desk.finalized = 99
    await bench.completed(job_id)


async def test_a_relayer_that_halted_takes_nothing_of_the_past_until_it_is_resumed(bench: Bench) -> None:
    bench.chain(100)
    source = await followed(bench.tenants, bench.tenant)
    await _put(bench, source, RelayerStatus.HALTED)
    job_id = await bench.start(source, 0, 99)
    failed = await bench.until(job_id, JobStatus.FAILED)
    assert (failed.error or "").startswith("relayer_not_running")
    assert await bench.stored(source) == []
    await _put(bench, source, RelayerStatus.FOLLOWING)
    await bench.say(job_id, JobCommand.RETRY)
    await bench.completed(job_id)


async def _put(bench: Bench, source: Source, status: RelayerStatus) -> None:
    async with tenant_transaction(bench.tenants, bench.tenant) as connection:
        await sources.set_status(connection, source.source_id, status)


async def test_an_event_that_was_left_out_at_a_boundary_is_found_when_pieces_join(bench: Bench) -> None:
    """A node that keeps no old state cannot say which number comes before a chunk: only the chunk before it can."""
    desk = bench.chain(300)
    desk.keeps_state, desk.loses_at = False, 100
    source = await followed(bench.tenants, bench.tenant)
    await bench.completed(await bench.start(source, 0, 299, chunk_blocks=100))
    assert desk.loses_at is None, "it was left out once"
    assert await bench.stored(source) == list(range(1, 901))


async def test_a_job_that_nobody_carries_is_brought_back(bench: Bench) -> None:
    """Its workflow was never started: Temporal was away when it was asked for."""
    bench.chain(50)
    source = await followed(bench.tenants, bench.tenant)
    new = NewJob(new_id(), source.source_id, source.relayer_id, 0, 49, 10)
    async with tenant_transaction(bench.tenants, bench.tenant) as connection:
        await jobs.insert(connection, bench.tenant, new, at=now() - timedelta(minutes=5))
    looked = await bench.run(BackfillWatchWorkflow.run)
    assert looked >= 1
    await bench.completed(new.job_id)


async def test_old_jobs_go(bench: Bench) -> None:
    bench.chain(50)
    source = await followed(bench.tenants, bench.tenant)
    old, young = [await bench.start(source, 0, 49, chunk_blocks=10) for _ in range(2)]
    for job_id in (old, young):
        await bench.completed(job_id)
    await bench.sql(
        "UPDATE backfill_jobs SET finished_at = finished_at - interval '181 days' WHERE job_id = :job", job=old
    )
    assert await bench.run(BackfillRetentionWorkflow.run) == 1
    assert await bench.sql("SELECT 1 FROM backfill_chunks WHERE job_id = :job", job=old) == []
    left = await bench.sql("SELECT job_id FROM backfill_jobs WHERE source_id = :s", s=source.source_id)
    assert [row.job_id for row in left] == [young]


async def test_a_range_that_meets_the_live_end_joins_it(bench: Bench) -> None:
    """Above the range stands what the live end wrote, with every block; the numbers run on over the boundary."""
    desk = bench.chain(200)
    source = await followed(bench.tenants, bench.tenant)
    await bench.completed(await bench.start(source, 150, 199))
    with psycopg.connect(bench.url) as connection:
        connection.execute(
            "UPDATE chain_blocks SET parent_hash = %s WHERE source_id = %s AND number = 150",
            [bytes(32), source.source_id],
        )
    failed = await bench.until(await bench.start(source, 100, 149), JobStatus.FAILED)
    assert (failed.error or "").startswith("job_forked")
    *below, above = await bench.covered(source)
    assert above == (150, 199), "what does not join is not written"
    assert all(last < 149 for _, last in below)
    assert desk.fetched
