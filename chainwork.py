"""The composition root's part for chains, beside ``worker.py``: who takes relayers' turns, and who fills chunks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.worker import Worker

from activities.chain.backfill import BackfillActivities
from activities.chain.backfill_watch import BackfillWatchActivities
from activities.chain.books import BooksReadingActivities, ChainBooksActivities
from activities.chain.delivering import ChainEscrowDesk
from activities.chain.filling import FillPace
from activities.chain.jobs import FillingActivities
from activities.chain.ports import ChainDesk
from activities.chain.relayer import TURN_SECONDS, FollowingActivities, RelayerActivities, RelayerWatchActivities
from activities.chain.settling import (
    ChainSettlementActivities,
    ChainSettlementWatchActivities,
    Tokens,
)
from activities.failures import FailureInterceptor
from db.doorbell import Doorbell
from workflows.limits import backfill_queue, chain_queue

#: What is under way when a process is told to stop has so long to end.
GRACE = timedelta(seconds=10)
#: Sources that a process follows at a time.
RELAYER_TURNS_MAX = 200
#: Chunks that a process has under way at a time; most of them wait.
BACKFILL_CHUNKS_MAX = 60


def chain_steps(tenants: AsyncEngine, engine: AsyncEngine, doorbell: Doorbell) -> list[Any]:
    """The steps of relayers and backfill jobs that ask no chain; ``tenants`` acts under row-level security, ``engine``
    sees every tenant."""
    relayers = RelayerActivities(engine, Doorbell(engine))
    jobs, watch = BackfillActivities(tenants, doorbell), BackfillWatchActivities(engine)
    return [
        relayers.load,
        relayers.carry_out,
        RelayerWatchActivities(engine).bring_back,
        jobs.load,
        jobs.command,
        jobs.end,
        watch.resume_idle,
        watch.delete_old,
    ]


def settling_steps(
    tenants: AsyncEngine,
    engine: AsyncEngine,
    doorbell: Doorbell,
    desk: ChainEscrowDesk,
    tokens: Tokens,
) -> list[Any]:
    """The steps of settling from chains, and of comparing books with contracts; ``desk`` reaches escrows' workflows,
    ``tokens`` say what tokens are here."""
    settling = ChainSettlementActivities(tenants, doorbell, desk, tokens)
    books = ChainBooksActivities(tenants, engine, doorbell, tokens)
    return [
        settling.deliver,
        settling.record,
        ChainSettlementWatchActivities(engine).resume_waiting,
        books.list_settling,
        books.compare,
    ]


def create_chain_worker(
    client: Client,
    task_queue: str,
    *,
    engine: AsyncEngine,
    chains: Mapping[str, ChainDesk],
    tokens: Tokens | None = None,
    turn_seconds: float = TURN_SECONDS,
) -> Worker:
    """Who takes relayers' turns and reads contracts' books, beside the worker of ``task_queue``.

    ``engine`` sees every tenant.

    It has no workflows and no version of its own: any build takes any relayer's turn.
    """
    following = FollowingActivities(engine, Doorbell(engine), chains, turn_seconds=turn_seconds)
    return Worker(
        client,
        task_queue=chain_queue(task_queue),
        activities=[following.follow, BooksReadingActivities(engine, chains, tokens or {}).read],
        interceptors=[FailureInterceptor()],
        max_concurrent_activities=RELAYER_TURNS_MAX,
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        graceful_shutdown_timeout=GRACE,
    )


def create_backfill_worker(
    client: Client,
    task_queue: str,
    *,
    engine: AsyncEngine,
    chains: Mapping[str, ChainDesk],
    pace: FillPace | None = None,
) -> Worker:
    """Who fills chunks of backfill jobs, beside the worker of ``task_queue``; ``engine`` sees every tenant.

    It has no workflows and no version of its own: any build fills any chunk.
    """
    filling = FillingActivities(engine, Doorbell(engine), chains, pace or FillPace())
    return Worker(
        client,
        task_queue=backfill_queue(task_queue),
        activities=[filling.plan, filling.fill, filling.verify],
        interceptors=[FailureInterceptor()],
        max_concurrent_activities=BACKFILL_CHUNKS_MAX,
        graceful_shutdown_timeout=timedelta(0),
    )
