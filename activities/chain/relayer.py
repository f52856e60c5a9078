"""Steps of relayers: load one, follow for a while, carry an operator's command out; and the look for lost ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from time import monotonic
from typing import Final
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from activities.chain import telling
from activities.chain.following import Follower, Tally
from activities.chain.noting import ProviderNotes
from activities.chain.ports import ChainDesk
from activities.chain.relayer_messages import CarryOut, RelayerCommand, RelayerRun, RelayerState, TurnDone
from activities.watching import BATCH, TASK_TIMEOUT
from db.audit import AuditRecord
from db.chain import cursors, sources, writing
from db.chain.cursors import NotFollowing, Stand
from db.chain.sources import Followed
from db.doorbell import Doorbell
from db.engine import transaction
from db.outbox import OutboxEvent
from db.step import step
from domain.chain import Source
from domain.chain.following import Ask, Position, after, check_rewind, went_back
from domain.errors import Refusal, Unavailable
from domain.ids import relayer_workflow_id
from kit.clock import now

#: How long a turn follows before it tells its workflow how it went.
TURN_SECONDS: Final = 60.0
#: A look that failed is waited with longer each time.
FAULT_SECONDS, FAULT_SECONDS_MAX = 0.2, 5.0
BEAT_SECONDS: Final = 1.0
#: Who follows hears of its chain every second or so; the margin is for a chain that is slow.
SILENT_AFTER: Final = timedelta(seconds=30)

_blocks = Counter("holdfast_chain_blocks_total", "Blocks that relayers wrote", ["chain"])
_events = Counter("holdfast_chain_events_total", "Events that relayers wrote", ["chain"])
_reverted = Counter("holdfast_chain_reverted_total", "Events that a chain has left", ["chain"])
_reorgs = Counter("holdfast_chain_reorgs_total", "Reorganisations that relayers went through", ["chain"])
_faults = Counter("holdfast_chain_faults_total", "Looks that failed", ["chain"])


class RelayerActivities:
    """What relayers do with the database alone. ``engine`` sees every tenant; ``doorbell`` wakes the relay."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell) -> None:
        self._engine = engine
        self._doorbell = doorbell

    @activity.defn(name="relayer.load")
    async def load(self, run: RelayerRun) -> RelayerState:
        """Where a relayer stands; refuses one that nobody registered."""
        async with transaction(self._engine) as connection:
            followed = await _find(connection, run.tenant_id, run.relayer_id)
            return _state(followed, await cursors.read(connection, followed.source.source_id))

    @activity.defn(name="relayer.carry_out")
    async def carry_out(self, asked: CarryOut) -> RelayerState:
        """Pause, resume or rewind. Once it is done nothing is written that the command forbids, whoever is at it."""
        command = asked.command
        subject = relayer_workflow_id(asked.relayer_id)
        async with step(
            self._engine, self._doorbell, tenant_id=asked.tenant_id, step_id=f"{subject}:{command.command_id}"
        ) as opened:
            if opened.receipt is not None:
                return RelayerState.model_validate(opened.receipt)
            connection = opened.connection
            followed = await _find(connection, asked.tenant_id, asked.relayer_id)
            stand, _ = await cursors.lock(connection, followed.source.source_id)
            status, events = after(stand.status, command.ask), list[OutboxEvent]()
            if command.ask is Ask.REWIND:
                stand, events = await self._rewind(connection, followed, stand.position, command)
            else:
                await sources.set_status(connection, followed.source.source_id, status)
            state = _state(Followed(followed.source, status, None), stand)
            details = {"block_number": state.block_number, "status": status, "to_block": command.to_block}
            await opened.finish(
                result=state.model_dump(mode="json"),
                audit=AuditRecord(subject, _DONE[command.ask], now(), command.origin.to_origin(subject), details),
                events=events,
            )
        return state

    async def _rewind(
        self, connection: AsyncConnection, followed: Followed, position: Position, command: RelayerCommand
    ) -> tuple[Stand, list[OutboxEvent]]:
        to_block, source, at = command.to_block, followed.source, now()
        if to_block is None:
            raise Refusal("block_range_invalid", "a rewind says to which block", field="to_block")
        check_rewind(position, to_block)
        block = await writing.hash_at(connection, source.source_id, to_block)
        left = await writing.leave(connection, source.source_id, to_block, position.number)
        numbers = [event.sequence for event in left]
        back = went_back(position, to_block, None if block is None else block.hash, numbers)
        await cursors.move(connection, source.source_id, back, at)
        return Stand(back, followed.status, None), list(telling.reverted(source, left, at))


class FollowingActivities:
    """Turns of relayers. ``chains`` are the desks of the chains that this process knows, by name."""

    def __init__(
        self,
        engine: AsyncEngine,
        doorbell: Doorbell,
        chains: Mapping[str, ChainDesk],
        *,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._chains = chains
        self._notes: dict[int, ProviderNotes] = {}
        self._turn_seconds = turn_seconds

    @activity.defn(name="relayer.follow")
    async def follow(self, run: RelayerRun) -> TurnDone:
        """Follow the live end for about a minute, from wherever the cursor stands; heartbeats all the while.

        A chain that does not answer is asked again within the turn. Ends early where the relayer is told to stop.
        """
        async with transaction(self._engine) as connection:
            followed = await _find(connection, run.tenant_id, run.relayer_id)
        desk = self._chains.get(followed.source.chain)
        if desk is None:
            raise Unavailable(f"chain:{followed.source.chain}", "this worker's configuration has no chain of this name")
        follower = Follower(self._engine, self._doorbell, desk, followed.source)
        async with _heartbeats(follower):
            await self._follow(follower, desk, followed.source)
        async with transaction(self._engine) as connection:
            followed = await _find(connection, run.tenant_id, run.relayer_id)
            state = _state(followed, await cursors.read(connection, followed.source.source_id))
        return _done(state, follower.tally)

    async def _follow(self, follower: Follower, desk: ChainDesk, source: Source) -> None:
        end, pause, counted = monotonic() + self._turn_seconds, FAULT_SECONDS, Tally()
        while monotonic() < end and not activity.is_worker_shutdown():
            began = monotonic()
            try:
                more = await follower.look()
            except NotFollowing:
                return
            except Unavailable as absence:
                if not absence.what.startswith("chain"):
                    raise
                follower.tally.fault = str(absence)
                _faults.labels(desk.name).inc()
                wait, pause = pause, min(2 * pause, FAULT_SECONDS_MAX)
            else:
                follower.tally.fault, pause = None, FAULT_SECONDS
                wait = 0.0 if more else max(0.0, desk.poll_seconds - (monotonic() - began))
            counted = _counted(desk.name, counted, follower.tally)
            await self._note(desk, source)
            await _rest(min(wait, max(0.0, end - monotonic())))

    async def _note(self, desk: ChainDesk, source: Source) -> None:
        """Write down how the providers did, and tell of one that was caught in an untrue answer."""
        notes = self._notes.setdefault(id(desk), ProviderNotes(self._engine, desk))
        if await notes.keep(source, now()):
            self._doorbell.ring()


class RelayerWatchActivities:
    """``engine`` sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="relayer.bring_back")
    async def bring_back(self) -> int:
        """Wake the workflow of every relayer that has been silent for too long, or start it; returns how many."""
        details = activity.info().heartbeat_details
        found, last = (int(details[0]), int(details[1])) if details else (0, 0)
        while True:
            async with transaction(self._engine) as connection:
                batch = await cursors.list_silent(connection, after=last, margin=SILENT_AFTER, most=BATCH)
            for silent in batch:
                await _resume(silent.tenant_id, silent.relayer_id)
                found, last = found + 1, silent.source_id
                activity.heartbeat(found, last)
            if len(batch) < BATCH:
                return found


_DONE: Final = {Ask.PAUSE: "relayer.paused", Ask.RESUME: "relayer.resumed", Ask.REWIND: "relayer.rewound"}


async def _resume(tenant_id: UUID, relayer_id: str) -> None:
    await activity.client().start_workflow(
        "RelayerWorkflow",
        RelayerRun(tenant_id=tenant_id, relayer_id=relayer_id),
        id=relayer_workflow_id(relayer_id),
        task_queue=activity.info().task_queue,
        task_timeout=TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal="look",
        static_summary="woken by the watch: nothing was heard of its chain",
    )


async def _find(connection: AsyncConnection, tenant_id: UUID, relayer_id: str) -> Followed:
    followed = await sources.find(connection, relayer_id)
    if followed is None or followed.source.tenant_id != tenant_id:
        raise Refusal("relayer_unknown", f"no relayer {relayer_id}")
    return followed


def _state(followed: Followed, stand: Stand) -> RelayerState:
    position = stand.position
    return RelayerState(
        relayer_id=followed.source.relayer_id,
        status=followed.status,
        reason=followed.reason,
        block_number=position.number,
        last_sequence=position.last_sequence,
        confirmed_number=position.confirmed,
        finalized_number=position.finalized,
        head_number=stand.head_number,
    )


def _done(state: RelayerState, tally: Tally) -> TurnDone:
    return TurnDone(
        state=state,
        blocks=tally.blocks,
        events=tally.events,
        reorgs=tally.reorgs,
        reverted=tally.reverted,
        fault=tally.fault,
    )


def _counted(chain: str, before: Tally, tally: Tally) -> Tally:
    """Count what is new in a tally; answers the tally as it is now."""
    _blocks.labels(chain).inc(tally.blocks - before.blocks)
    _events.labels(chain).inc(tally.events - before.events)
    _reorgs.labels(chain).inc(tally.reorgs - before.reorgs)
    _reverted.labels(chain).inc(tally.reverted - before.reverted)
    return Tally(tally.blocks, tally.events, tally.reorgs, tally.reverted)


async def _rest(seconds: float) -> None:
    """Wait, no longer than until the worker is told to stop; a busy loop gives way, too."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await activity.wait_for_worker_shutdown()


@asynccontextmanager
async def _heartbeats(follower: Follower) -> AsyncIterator[None]:
    """While a turn lasts, so that one whose process died is noticed soon."""

    async def beat() -> None:
        while True:
            position = follower.position
            activity.heartbeat(None if position is None else position.number)
            await asyncio.sleep(BEAT_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
