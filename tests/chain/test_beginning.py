"""A live end that skips the past: it finds out for itself behind which event it begins."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.following import Follower
from activities.chain.ports import Lane
from db.chain import sources
from db.chain.cursors import NotFollowing
from db.doorbell import Doorbell
from db.engine import transaction
from domain.chain import Block, Source
from domain.errors import Unavailable
from tests.chain.model import ModelChain, ModelDesk
from tests.chain.watching import cursor, expected, register, rows


class Forgetful(ModelDesk):
    """No provider keeps the contract's state of the past."""

    async def counter(self, source: Source, block: Block, lane: Lane) -> int | None:
        return None


def chain() -> ModelChain:
    made = ModelChain()
    for number in range(6):
        made.mine(f"tx-{number}")
    return made


async def test_the_number_before_its_first_block_is_the_contracts(
    engine: AsyncEngine, tenants_engine: AsyncEngine, tenant: UUID
) -> None:
    source = await register(tenants_engine, tenant, "model", start_block=1, follow_from=4)
    model = chain()
    desk = ModelDesk(model)
    follower = Follower(engine, Doorbell(engine), desk, source)
    with pytest.raises(Unavailable, match="block 3, behind which it begins, is not final yet"):
        await follower.look()
    model.finalize(3)
    while await follower.look():
        pass
    assert await rows(engine, source) == expected(source, model.events(4, 6))
    found = await cursor(engine, source)
    assert (found.block_number, found.last_sequence, found.block_hash) == (6, 12, model.head.hash)
    assert min(first for first, _ in desk.fetches) == 4, "the past is for a backfill"


async def test_where_nobody_knows_the_number_nothing_is_guessed(
    engine: AsyncEngine, tenants_engine: AsyncEngine, tenant: UUID
) -> None:
    source = await register(tenants_engine, tenant, "model", start_block=1, follow_from=4)
    model = chain()
    model.finalize(6)
    follower = Follower(engine, Doorbell(engine), Forgetful(model), source)
    with pytest.raises(Unavailable, match="no provider keeps the contract's state at block 3"):
        await follower.look()
    assert (await cursor(engine, source)).block_number == 3


async def test_one_that_begins_behind_its_first_event_stops_and_says_why(
    engine: AsyncEngine, tenants_engine: AsyncEngine, tenant: UUID
) -> None:
    """A block too late, or a contract of another kind: nobody else is to blame for it."""
    source = await register(tenants_engine, tenant, "model", start_block=3, follow_from=3)
    desk = ModelDesk(chain())
    with pytest.raises(NotFollowing, match="halted"):
        await Follower(engine, Doorbell(engine), desk, source).look()
    assert desk.fetches == []
    async with transaction(engine) as connection:
        followed = await sources.get(connection, source.source_id)
    assert followed.reason == "its contract had told 4 events by block 2: it is not one of ours, or began before that"
