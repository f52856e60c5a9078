"""What every reader promises, whatever its chain is made of: on real nodes, compared with what is true there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from activities.chain.ports import ChainFault, ChainReader, FaultKind
from domain.chain import Event, consumer_id
from tests.chain.worlds import Fact, World, elsewhere, world


@pytest.fixture(scope="module", params=["evm", "utxo"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def chain(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(kind, tmp_path_factory.mktemp(kind)) as made:
        made.happen()
        made.mine(3)
        made.happen()
        made.mine(2)
        yield made


@pytest.fixture
async def reader(chain: World) -> AsyncIterator[ChainReader]:
    reader = chain.reader()
    yield reader
    await reader.close()


def fact(event: Event) -> Fact:
    return Fact(
        event.block_number,
        event.block_hash,
        event.tx_hash,
        event.tx_index,
        event.ordinal,
        event.kind,
        event.amount,
    )


async def behind(ask: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(ChainFault) as fault:
        await ask()
    assert fault.value.kind is FaultKind.BEHIND, fault.value.message


async def test_a_node_says_which_chain_it_is_of(kind: str, chain: World, reader: ChainReader, tmp_path: Path) -> None:
    assert await reader.network() == chain.source.network
    with elsewhere(kind, tmp_path) as other:
        assert await other.network() != chain.source.network
        assert (await other.network()).split(":")[0] == chain.source.network.split(":")[0]
        await other.close()


async def test_headers_are_one_chain_and_the_head_is_its_end(chain: World, reader: ChainReader) -> None:
    head = await reader.head()
    numbers = range(head.latest.number + 1)
    blocks = await reader.blocks(numbers)
    assert [block.number for block in blocks] == list(numbers)
    assert all(block.parent_hash == before.hash for before, block in pairwise(blocks))
    assert all(block.at_seconds >= before.at_seconds for before, block in pairwise(blocks[1:]))
    assert blocks[-1] == head.latest
    assert head.finalized is None or head.finalized <= head.latest.number
    assert list(await reader.blocks([5, 3, 3])) == [blocks[5], blocks[3], blocks[3]]
    assert list(await reader.blocks([])) == []


async def test_every_event_is_there_once_in_the_chains_order(chain: World, reader: ChainReader) -> None:
    head = (await reader.head()).latest
    events = await reader.events(chain.source, 0, head.number)
    assert [fact(event) for event in events] == list(chain.truth())
    assert len(events) > 10
    assert all(
        (before.block_number, before.log_index) < (event.block_number, event.log_index)
        for before, event in pairwise(events)
    )
    blocks = await reader.blocks(range(head.number + 1))
    assert all(event.at_seconds in (0, blocks[event.block_number].at_seconds) for event in events)


async def test_a_range_is_the_same_in_parts_and_block_by_block(chain: World, reader: ChainReader) -> None:
    head = (await reader.head()).latest
    whole = list(await reader.events(chain.source, 0, head.number))
    chance = Random(7)
    for _ in range(5):
        ends = sorted({0, head.number + 1, *(chance.randrange(1, head.number) for _ in range(6))})
        parts = [await reader.events(chain.source, first, end - 1) for first, end in pairwise(ends)]
        assert [event for part in parts for event in part] == whole
    blocks = await reader.blocks(sorted({event.block_number for event in whole} | {head.number}))
    by_block = [await reader.events_of(chain.source, block) for block in blocks]
    assert [event for part in by_block for event in part] == whole
    assert by_block[-1] == []


async def test_the_counter_is_that_of_exactly_that_block(chain: World, reader: ChainReader) -> None:
    head = (await reader.head()).latest
    events = await reader.events(chain.source, 0, head.number)
    numbers = {event.block_number for event in events}
    for block in await reader.blocks(sorted(numbers | {0, head.number} | {number - 1 for number in numbers})):
        counter = await reader.counter(chain.source, block)
        assert counter == chain.counted(block)
        if counter is not None:
            so_far = [event.sequence for event in events if event.block_number <= block.number]
            assert so_far == list(range(1, counter + 1))


async def test_what_is_not_there_yet_is_behind(chain: World, reader: ChainReader) -> None:
    head = (await reader.head()).latest
    unknown = head._replace(hash=bytes(31) + b"\x01")
    await behind(lambda: reader.blocks([head.number, head.number + 1]))
    await behind(lambda: reader.blocks([2**31 - 1]))
    await behind(lambda: reader.events(chain.source, head.number + 1, head.number + 9))
    await behind(lambda: reader.events_of(chain.source, unknown))


async def test_a_range_beyond_the_head_is_never_taken_for_complete(chain: World, reader: ChainReader) -> None:
    """A node may say what it has of one; then its headers must say that it has not all of it."""
    head = (await reader.head()).latest
    try:
        await reader.events(chain.source, 0, head.number + 9)
    except ChainFault as fault:
        assert fault.kind is FaultKind.BEHIND
    await behind(lambda: reader.blocks([head.number + 9]))


@pytest.mark.parametrize("depth", [2, 7, 20])
async def test_after_a_reorganisation_what_was_left_is_behind_and_what_replaced_it_is_there(
    chain: World, reader: ChainReader, depth: int
) -> None:
    chain.happen()
    chain.mine(max(0, depth - 6))
    before = (await reader.head()).latest
    old = await reader.blocks(range(before.number + 1))
    was = await reader.events(chain.source, 0, before.number)
    chain.reorganize(depth)
    head = (await reader.head()).latest
    new = await reader.blocks(range(head.number + 1))
    ancestor = before.number - depth
    assert new[: ancestor + 1] == old[: ancestor + 1]
    assert all(one.hash != other.hash for one, other in zip(new[ancestor + 1 :], old[ancestor + 1 :], strict=False))
    events = await reader.events(chain.source, 0, head.number)
    assert [fact(event) for event in events] == list(chain.truth())
    for block in old[ancestor + 1 :]:
        await behind(lambda block=block: reader.events_of(chain.source, block))  # type: ignore[misc]

    # What happens again is known by the same id.
    def ids(found: list[Event]) -> set[object]:
        space = chain.source.namespace
        return {consumer_id(space, event.tx_hash, event.ordinal) for event in found if event.block_number > ancestor}

    left, came = ids(list(was)), ids(list(events))
    assert came
    assert came <= left
