"""The live end of one source over a chain in memory and the real database: each thing that can happen, by itself."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.following import STRANGE_LOOKS, Follower
from activities.chain.ports import Lane
from db.chain import cursors, sources, writing
from db.chain.cursors import NotFollowing
from db.doorbell import Doorbell
from db.engine import transaction
from domain.chain import RelayerStatus, Source
from domain.errors import Unavailable
from tests.chain.model import ModelChain, ModelDesk
from tests.chain.watching import as_told, cursor, expected, register, replayed, rows, told
from tests.db.raw import sql


class Watched:
    """A source, its chain and who follows it."""

    def __init__(self, engine: AsyncEngine, source: Source, chain: ModelChain) -> None:
        self.engine = engine
        self.source = source
        self.chain = chain
        self.desk = ModelDesk(chain)
        self.restart()

    def restart(self) -> None:
        self.follower = Follower(self.engine, Doorbell(self.engine), self.desk, self.source)

    async def caught_up(self) -> None:
        rests = 0
        for _ in range(50):
            rests = 0 if await self.follower.look() else rests + 1
            # What looks like another chain is looked at again, and not at once.
            if rests == STRANGE_LOOKS:
                return
        raise AssertionError("it does not come to rest")

    async def agrees(self) -> None:
        """What is here is what the chain says, and so is what was told."""
        held = await rows(self.engine, self.source)
        at = (await cursor(self.engine, self.source)).block_number
        assert held == expected(self.source, self.chain.events(0, at))
        assert replayed(await told(self.engine, self.source)) == as_told(held)

    async def types(self) -> list[str]:
        return [type_ for type_, _ in await told(self.engine, self.source)]


@pytest.fixture
async def watched(engine: AsyncEngine, tenants_engine: AsyncEngine, tenant: UUID) -> Watched:
    return Watched(engine, await register(tenants_engine, tenant, "model"), ModelChain())


async def test_blocks_arrive_with_their_events_and_watermarks(watched: Watched) -> None:
    for number in range(5):
        watched.chain.mine(f"tx-{number}")
    watched.chain.finalize(2)
    await watched.caught_up()
    await watched.agrees()
    found = await cursor(watched.engine, watched.source)
    assert (found.block_number, found.confirmed_number, found.finalized_number) == (5, 3, 2)
    assert (found.block_hash, found.last_sequence, found.head_number) == (watched.chain.head.hash, 10, 5)
    final = {"relayer_id": watched.source.relayer_id, "block_number": 2, "last_sequence": 4}
    assert [data for type_, data in await told(watched.engine, watched.source) if type_ == "chain.finalized"] == [final]
    watched.chain.finalize(5)
    await watched.caught_up()
    assert (await cursor(watched.engine, watched.source)).finalized_number == 5, "without a new block, too"


async def test_a_reorganisation_is_reverted_newest_first_and_the_same_events_keep_their_ids(watched: Watched) -> None:
    for name in ("a", "b", "c"):
        watched.chain.mine(name)
    await watched.caught_up()
    before = await rows(watched.engine, watched.source)
    watched.chain.drop(2)
    watched.chain.mine("c")
    watched.chain.mine("d", "b")
    watched.chain.mine()
    await watched.caught_up()
    await watched.agrees()
    after = await rows(watched.engine, watched.source)
    assert {row[0] for row in before} < {row[0] for row in after}
    assert await rows(watched.engine, watched.source, canonical=False) == before[2:]
    types = await watched.types()
    assert types[6:] == ["chain.reorganized", *4 * ["chain.event_reverted"], *6 * ["chain.event_applied"]]
    async with transaction(watched.engine) as connection:
        [reorg] = await sql(connection, "SELECT * FROM chain_reorgs WHERE source_id = :id", id=watched.source.source_id)
    assert (reorg.ancestor_number, reorg.depth, reorg.events_reverted, reorg.providers) == (1, 2, 4, ["model"])


async def test_a_chain_that_comes_back_to_what_it_left(watched: Watched) -> None:
    watched.chain.mine("a")
    watched.chain.mine("b")
    first = list(watched.chain.blocks)
    await watched.caught_up()
    watched.chain.drop(2)
    watched.chain.mine("b")
    watched.chain.mine("a")
    watched.chain.mine()
    await watched.caught_up()
    watched.chain.blocks[:] = first
    watched.chain.mine("c")
    watched.chain.mine()
    await watched.caught_up()
    await watched.agrees()


async def test_a_head_that_is_lower_is_a_lag_until_it_stands_on_another_history(watched: Watched) -> None:
    for name in ("a", "b", "c", "d"):
        watched.chain.mine(name)
    await watched.caught_up()
    watched.desk.lag = 3
    assert not await watched.follower.look()
    assert (await cursor(watched.engine, watched.source)).block_number == 4
    watched.desk.lag = 0
    watched.chain.drop(3)
    watched.chain.mine("d")
    await watched.caught_up()
    await watched.agrees()
    assert (await cursor(watched.engine, watched.source)).block_number == 2


async def test_a_reorganisation_while_nobody_looked(watched: Watched) -> None:
    watched.chain.mine("a")
    watched.chain.mine("b")
    await watched.caught_up()
    watched.chain.drop(1)
    watched.chain.mine("c")
    watched.restart()
    await watched.caught_up()
    await watched.agrees()


async def test_a_fork_below_what_is_final_halts_and_publishes_nothing(watched: Watched) -> None:
    for name in ("a", "b", "c"):
        watched.chain.mine(name)
    watched.chain.finalize(2)
    await watched.caught_up()
    before, said = await rows(watched.engine, watched.source), len(await watched.types())
    watched.chain.finalized = 0
    watched.chain.drop(2)
    for name in ("x", "y", "z"):
        watched.chain.mine(name)
    with pytest.raises(NotFollowing):
        await watched.caught_up()
    assert await rows(watched.engine, watched.source) == before
    assert (await watched.types())[said:] == ["chain.relayer_halted"]
    found = await cursor(watched.engine, watched.source)
    assert (found.status, found.status_reason) == ("halted", "the chain left block 2, which was final")
    watched.restart()
    with pytest.raises(NotFollowing):
        await watched.caught_up()
    assert (await watched.types())[said:] == ["chain.relayer_halted"], "once"


async def test_nothing_is_written_after_a_pause(watched: Watched) -> None:
    watched.chain.mine("a")
    await watched.caught_up()
    watched.chain.mine("b")

    async with transaction(watched.engine) as connection:
        await sources.set_status(connection, watched.source.source_id, RelayerStatus.PAUSED)
    with pytest.raises(NotFollowing):
        await watched.caught_up()
    assert (await cursor(watched.engine, watched.source)).block_number == 1


async def test_what_a_job_covered_is_skipped_and_not_fetched(watched: Watched) -> None:
    for number in range(1, 41):
        watched.chain.mine(f"tx-{number}")
    watched.chain.finalize(35)
    await filled(watched, 10, 30)
    await watched.caught_up()
    found = await cursor(watched.engine, watched.source)
    assert (found.block_number, found.last_sequence) == (40, 80)
    assert await rows(watched.engine, watched.source) == expected(watched.source, watched.chain.events(0, 40))
    assert watched.desk.fetches == [(0, 9), (31, 35), (36, 40)]
    assert [*found.covered] == [type(found.covered[0])(0, 41)]


async def test_a_piece_that_a_job_covers_meanwhile_is_not_written_twice(watched: Watched) -> None:
    for number in range(1, 21):
        watched.chain.mine(f"tx-{number}")
    watched.chain.finalize(20)
    position = (await _stand(watched)).position
    await filled(watched, 0, 12)
    head = await watched.desk.head(Lane.LIVE)
    fetched = await watched.desk.fetch(watched.source, 0, 20, Lane.LIVE, after=None, after_sequence=0)
    with pytest.raises(cursors.Overtaken):
        await watched.follower._move(position, replace(position, number=20), head, fetched)
    await watched.caught_up()
    assert await rows(watched.engine, watched.source) == expected(watched.source, watched.chain.events(0, 20))


async def test_two_who_follow_one_source_write_it_once(watched: Watched) -> None:
    other = Watched(watched.engine, watched.source, watched.chain)
    for number in range(12):
        watched.chain.mine(f"tx-{number}")
        if number % 3 == 2:
            watched.chain.drop(2)
            watched.chain.mine(f"other-{number}")
            watched.chain.mine(f"tx-{number}")
        await watched.caught_up()
        await other.caught_up()
    await watched.agrees()


async def test_a_provider_that_leaves_events_out_is_not_believed(watched: Watched) -> None:
    for name in ("a", "b"):
        watched.chain.mine(name)
    whole = watched.chain.blocks[1]
    watched.chain.blocks[1] = replace(whole, events=whole.events[:1])
    with pytest.raises(Unavailable, match="event 3 in block 2 follows event 1"):
        await watched.caught_up()
    watched.chain.blocks[1] = whole
    await watched.caught_up()
    await watched.agrees()


async def test_the_live_end_begins_where_it_is_told(
    engine: AsyncEngine, tenants_engine: AsyncEngine, tenant: UUID
) -> None:
    chain = ModelChain()
    for name in ("a", "b", "c", "d"):
        chain.mine(name)
    watched = Watched(engine, await register(tenants_engine, tenant, "model", follow_from=3, last_sequence=4), chain)
    await watched.caught_up()
    assert await rows(engine, watched.source) == expected(watched.source, chain.events(3, 4))
    chain.drop(2)
    chain.mine("e")
    chain.mine("f")
    await watched.follower.look()
    assert "chain.reorganized" not in await watched.types(), "nothing in common is not believed at once"
    await watched.caught_up()
    assert "chain.reorganized" in await watched.types()
    assert await rows(engine, watched.source) == expected(watched.source, chain.events(3, 4))
    assert (await cursor(engine, watched.source)).last_sequence == 8


async def _stand(watched: Watched) -> cursors.Stand:
    async with transaction(watched.engine) as connection:
        return await cursors.read(connection, watched.source.source_id)


async def filled(watched: Watched, first: int, last: int) -> None:
    """What a job leaves that fills blocks in."""
    fetched = await watched.desk.fetch(watched.source, first, last, Lane.JOB, after=None, after_sequence=None)
    watched.desk.fetches.clear()
    async with transaction(watched.engine) as connection:
        await cursors.lock(connection, watched.source.source_id)
        await writing.append(connection, watched.source, fetched)
