"""Providers on real sockets before a real node: healthy, lagging, lying, and one with which everything goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from activities.chain.desk import Desk
from activities.chain.pool import Patience, Provider
from activities.chain.ports import ChainFault, FaultKind, Lane
from activities.vendors.evm import EvmReader
from domain.chain import Block, Event, Fetched, Source
from domain.errors import Unavailable
from tests.anvil import running
from tests.chain.faults import OF_LOGS, Fault, FaultProxy
from tests.chain.reading import contract_source
from tests.chain.twists import Lie
from tests.contracts import desk as parties

PATIENCE = Patience(live=20, job=20, hedge=0.15, backoff=0.01, backoff_max=0.2, accused_alone=0.02, heads=0.0)
TIMEOUT_SECONDS = 0.5
NETWORK = "eip155:31337"
ESCROWS = 12


class Truth:
    """A node with a contract, and what is true of it."""

    def __init__(self, url: str, source: Source, blocks: Sequence[Block], events: Sequence[Event]) -> None:
        self.url = url
        self.source = source
        self.blocks = tuple(blocks)
        self.events = tuple(events)

    @property
    def top(self) -> int:
        return self.blocks[-1].number

    def between(self, first: int, last: int) -> tuple[Event, ...]:
        return tuple(event for event in self.events if first <= event.block_number <= last)

    def before(self, first: int) -> int:
        return len(self.between(0, first - 1))


@pytest.fixture(scope="module")
async def truth(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Truth]:
    with running(tmp_path_factory.mktemp("anvil")) as chain:
        party = parties.Desk(chain)
        for _ in range(ESCROWS):
            party.done(party.funded(party.terms()), "approve", by=party.buyer)
            chain.rpc("anvil_mine", "0x2")
        source = contract_source(party.contract.address)
        reader = EvmReader("truth", chain.url)
        top = (await reader.head()).latest.number
        blocks = await reader.blocks(range(top + 1))
        at = {block.number: block.at_seconds for block in blocks}
        events = [e._replace(at_seconds=at[e.block_number]) for e in await reader.events(source, 0, top)]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        await reader.close()
        yield Truth(chain.url, source, blocks, events)


@asynccontextmanager
async def desk_over(*proxies: FaultProxy, agreeing: int = 1, patience: Patience = PATIENCE) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        providers = []
        for place, proxy in enumerate(proxies):
            stack.enter_context(proxy)
            reader = EvmReader("abc"[place], proxy.url, timeout_seconds=TIMEOUT_SECONDS)
            providers.append(Provider(reader, timeout_seconds=TIMEOUT_SECONDS, range_blocks_max=20))
        desk = Desk("local", NETWORK, providers, agreeing=agreeing, patience=patience)
        stack.push_async_callback(desk.close)
        yield desk


async def fetched(desk: Desk, truth: Truth, first: int, last: int, lane: Lane) -> Fetched:
    """A range, which is the truth whenever there is an answer."""
    after = truth.blocks[first - 1] if first else None
    found = await desk.fetch(truth.source, first, last, lane, after=after, after_sequence=truth.before(first))
    assert found.events == truth.between(first, last)
    assert set(found.blocks) <= set(truth.blocks[first : last + 1])
    assert found.counter in (None, truth.before(last + 1))
    if found.whole:
        assert found.blocks == truth.blocks[first : last + 1]
    return found


@pytest.mark.parametrize("lie", list(Lie))
@pytest.mark.parametrize("lane", list(Lane))
async def test_healthy_lagging_and_lying(truth: Truth, lie: Lie, lane: Lane) -> None:
    """No wrong row, and the liar is named: with one that lags, two agree on all that it has."""
    healthy, liar = FaultProxy(truth.url), FaultProxy(truth.url, lie=lie)
    lagging = FaultProxy(truth.url, rate=1, faults=[Fault.LAGGING], lag_blocks=6)
    async with desk_over(healthy, lagging, liar, agreeing=2) as desk:
        head = await desk.head(lane)
        assert head.latest == truth.blocks[truth.top]
        for first, last in ((0, 19), (20, truth.top - 6), (0, truth.top - 6)):
            await fetched(desk, truth, first, last, lane)
        found = {health.provider: health for health in desk.health()}
        assert {name: health.status for name, health in found.items()} == {"a": "ok", "b": "lagging", "c": "accused"}
        assert found["c"].reason


@pytest.mark.parametrize("lie", [Lie.SILENT, Lie.OMITTING])
async def test_a_liar_alone_is_believed_nothing(truth: Truth, lie: Lie) -> None:
    async with desk_over(FaultProxy(truth.url, lie=lie), patience=Patience(job=1.5, backoff=0.01)) as desk:
        with pytest.raises(Unavailable):
            await fetched(desk, truth, 0, truth.top, Lane.JOB)
        assert {health.status for health in desk.health()} == {"accused"}


@pytest.mark.parametrize("seed", range(2))
async def test_all_that_goes_wrong_is_outlasted(truth: Truth, seed: int) -> None:
    proxy = FaultProxy(truth.url, seed=seed, rate=0.15, hang_seconds=5)
    async with desk_over(proxy) as desk:
        for lane in Lane:
            first = 0
            while first <= truth.top:
                last = min(first + (2 if lane is Lane.LIVE else 24), truth.top)
                await fetched(desk, truth, first, last, lane)
                first = last + 1
        await asyncio.gather(*(fetched(desk, truth, first, truth.top, Lane.JOB) for first in range(0, truth.top, 9)))
    assert len(proxy.injected) >= 7, proxy.injected


@pytest.fixture(scope="module")
def twisted(truth: Truth) -> Iterator[FaultProxy]:
    with FaultProxy(truth.url, rate=1, hang_seconds=5) as proxy:
        yield proxy


@pytest.mark.parametrize("fault", list(Fault))
async def test_each_fault_is_one(truth: Truth, twisted: FaultProxy, fault: Fault) -> None:
    """What the proxy does is wrong, each in its way: a fault, or an answer that is not the truth."""
    twisted.faults = (fault,)
    reader = EvmReader("a", twisted.url, timeout_seconds=TIMEOUT_SECONDS)
    try:
        if fault is Fault.WRONG_CHAIN:
            assert await reader.network() != NETWORK
            return
        events = await reader.events(truth.source, 0, truth.top)
        head = await reader.head()
    except ChainFault as said:
        assert fault not in (Fault.TRUNCATED, Fault.EMPTY, Fault.LAGGING, Fault.REORGED), said
        assert (said.kind is FaultKind.NONSENSE) == (fault in OF_LOGS)
    else:
        assert tuple(event[1:3] for event in events) != tuple(event[1:3] for event in truth.events) or (
            head.latest != truth.blocks[truth.top]
        )
    finally:
        await reader.close()
    assert twisted.injected[fault]


def test_a_seed_says_what_goes_wrong(truth: Truth) -> None:
    contents = [b'{"method":"eth_getLogs"}', b'{"method":"eth_chainId"}'] * 200

    def drawn(seed: int) -> list[Fault | None]:
        proxy = FaultProxy(truth.url, seed=seed, rate=0.2)
        return [proxy._drawn(content) for content in contents]

    assert drawn(1) == drawn(1) != drawn(2)
    assert set(drawn(3)) == {None, *Fault}
    assert not set(drawn(3)[1::2]) & set(OF_LOGS)
