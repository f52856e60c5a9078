"""Whoever the providers are: what a desk hands over is the truth, and where two are honest and able, it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from activities.chain.desk import Desk
from activities.chain.pool import Patience, Provider
from activities.chain.ports import FaultKind, Forked, Lane
from domain.errors import Unavailable
from tests.chain.nodes import NETWORK, Cutting, Inflating, Leaving, ModelChain, Node, Silent, failing, source

PATIENCE = Patience(live=0.25, job=0.25, behind=0.1, hedge=0.05, backoff=0.002, backoff_max=0.05, heads=0.0)
CHAIN = ModelChain.of(0, 2, 0, 0, 1, 3, 0, 1, 0, 0, 0, 4, 0, 1, 1)
OTHER = CHAIN.fork(4)
for salt in range(4):
    OTHER.mine(salt, salt="other")

Maker = Callable[[str], Node]
HONEST: dict[str, Maker] = {
    "healthy": lambda name: Node(name, CHAIN),
    "narrow": lambda name: Node(name, CHAIN, cap=2),
    "slow": lambda name: Node(name, CHAIN, delay_seconds=0.003),
    "pruned": lambda name: Node(name, CHAIN, state_from=100),
    "shaky": lambda name: Node(name, CHAIN, fault=failing(FaultKind.UNAVAILABLE, 2)),
}
#: Each of these says something that none of the others does.
OTHERS: dict[str, Maker] = {
    "lagging": lambda name: Node(name, CHAIN, behind=5),
    "dead": lambda name: Node(name, CHAIN, fault=failing(FaultKind.UNAVAILABLE)),
    "limited": lambda name: Node(name, CHAIN, fault=failing(FaultKind.RATE_LIMITED)),
    "hung": lambda name: Node(name, CHAIN, delay_seconds=60),
    "elsewhere": lambda name: Node(name, CHAIN, network="eip155:1"),
    "silent": lambda name: Silent(name, CHAIN),
    "leaving": lambda name: Leaving(name, CHAIN),
    "cutting": lambda name: Cutting(name, CHAIN),
    "inflating": lambda name: Inflating(name, CHAIN),
    "orphaned": lambda name: Node(name, OTHER),
}
HONEST_ONES = st.lists(st.sampled_from(sorted(HONEST)), max_size=3)
OTHER_ONES = st.lists(st.sampled_from(sorted(OTHERS)), unique=True, max_size=3)
RANGES = st.tuples(st.integers(0, 14), st.integers(0, 14)).map(lambda two: (min(two), max(two)))


async def told(nodes: list[Node], first: int, last: int, lane: Lane, honest: int) -> None:
    providers = [Provider(node, timeout_seconds=0.2, range_blocks_max=6) for node in nodes]
    desk = Desk("dev", NETWORK, providers, agreeing=2, patience=PATIENCE)
    before = CHAIN.mined[first - 1] if first else None
    try:
        found = await desk.fetch(
            source(),
            first,
            last,
            lane,
            after=before.block if before else None,
            after_sequence=before.counter if before else 0,
        )
    except Unavailable:
        assert honest < 2
        return
    except Forked as fork:
        raise AssertionError("one orphan is no fork") from fork
    assert found.events == CHAIN.events(first, last)
    assert found.counter in (None, CHAIN.mined[last].counter)
    assert set(found.blocks) <= set(CHAIN.blocks(first, last))
    accused = {health.provider.rstrip("0123456789") for health in desk.health() if health.status == "accused"}
    assert not accused & HONEST.keys()


@given(HONEST_ONES, OTHER_ONES, RANGES, st.sampled_from(Lane), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_what_is_handed_over_is_true(honest, others, blocks, lane, random) -> None:  # type: ignore[no-untyped-def]
    makers = [(name, HONEST[name]) for name in honest] + [(name, OTHERS[name]) for name in others]
    random.shuffle(makers)
    if len(makers) >= 2:
        nodes = [maker(f"{name}{place}") for place, (name, maker) in enumerate(makers)]
        asyncio.run(told(nodes, blocks[0], blocks[1], lane, len(honest)))
