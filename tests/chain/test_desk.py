"""A chain through several providers: failing, slow, behind, on another branch, or lying."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

import pytest

from activities.chain.desk import Desk
from activities.chain.pool import Patience, Provider
from activities.chain.ports import FaultKind as Kind
from activities.chain.ports import Forked, Lane
from domain.chain import Block, Books, Event
from domain.errors import Unavailable
from tests.chain.nodes import (
    ADDRESS,
    NETWORK,
    Cutting,
    Inflating,
    Leaving,
    ModelChain,
    Node,
    Silent,
    failing,
    source,
)

QUICK = Patience(live=0.4, job=0.4, hedge=0.1, backoff=0.005, backoff_max=0.1, accused_alone=0.02, heads=0.0)
SOURCE = source()
#: 21 blocks with 1 to 20 events up to any of them.
CHAIN = ModelChain.of(0, *[1] * 20)


def desk(*nodes: Node, agreeing: int = 1, patience: Patience = QUICK, range_blocks_max: int = 10_000) -> Desk:
    providers = [Provider(node, timeout_seconds=0.3, range_blocks_max=range_blocks_max) for node in nodes]
    return Desk("dev", NETWORK, providers, agreeing=agreeing, patience=patience)


def statuses(one: Desk) -> dict[str, str]:
    return {health.provider: health.status for health in one.health()}


def reasons(one: Desk) -> dict[str, str]:
    return {health.provider: health.reason or "" for health in one.health()}


async def all_of(one: Desk, chain: ModelChain, first: int = 0, lane: Lane = Lane.JOB) -> None:
    """What is fetched is the chain's own truth."""
    last = chain.top.number
    before = chain.mined[first - 1] if first else None
    fetched = await one.fetch(
        SOURCE,
        first,
        last,
        lane,
        after=before.block if before else None,
        after_sequence=before.counter if before else 0,
    )
    assert fetched.events == chain.events(first, last)
    assert fetched.counter == chain.mined[last].counter
    assert (fetched.first, fetched.last) == (first, last)
    if fetched.whole:
        assert fetched.blocks == chain.blocks(first, last)
    assert {block.number for block in fetched.blocks} >= {first, last, *(e.block_number for e in fetched.events)}
    assert set(fetched.blocks) <= set(chain.blocks(first, last))


@pytest.mark.parametrize("lane", list(Lane))
@pytest.mark.parametrize("first", [0, 1, 5, 18, 20])
async def test_everything_of_a_range(first: int, lane: Lane) -> None:
    await all_of(desk(Node("a", CHAIN)), CHAIN, first, lane)


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.RATE_LIMITED, Kind.NONSENSE, Kind.BEHIND])
async def test_what_passes_is_waited_for(kind: Kind) -> None:
    one = desk(Node("a", CHAIN, fault=failing(kind, 2)))
    await all_of(one, CHAIN)
    assert statuses(one) == {"a": "ok"}


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.RATE_LIMITED, Kind.NONSENSE, Kind.BEHIND, Kind.REFUSED])
async def test_who_fails_is_passed_over(kind: Kind) -> None:
    bad = Node("a", CHAIN, fault=failing(kind))
    await all_of(desk(bad, Node("b", CHAIN)), CHAIN)


async def test_nobody_can_say() -> None:
    one = desk(Node("a", CHAIN, fault=failing(Kind.UNAVAILABLE)), Node("b", CHAIN, fault=failing(Kind.RATE_LIMITED)))
    with pytest.raises(Unavailable, match=r"a: a fault: unavailable; b: a fault: rate_limited") as raised:
        await all_of(one, CHAIN)
    assert raised.value.what == "chain:dev"
    assert statuses(one)["a"] == "down"


async def test_who_hangs_is_overtaken_and_then_left_alone() -> None:
    hung, good = Node("a", CHAIN, delay_seconds=60), Node("b", CHAIN)
    one = desk(hung, good)
    began = monotonic()
    await all_of(one, CHAIN)
    assert monotonic() - began < 2
    began = monotonic()
    await all_of(one, CHAIN)
    assert monotonic() - began < QUICK.hedge, "it was left alone"


async def test_a_node_of_another_chain_is_asked_for_nothing_else() -> None:
    wrong = Node("a", Leaving("", CHAIN).chain, network="eip155:1")
    one = desk(wrong, Node("b", CHAIN))
    await all_of(one, CHAIN)
    await one.head(Lane.LIVE)
    assert statuses(one) == {"a": "wrong_chain", "b": "ok"}
    assert set(wrong.calls) == {"network"}


@pytest.mark.parametrize("liar", [Silent, Leaving])
@pytest.mark.parametrize("lane", list(Lane))
async def test_a_gap_convicts_without_anybody_else(liar: type[Node], lane: Lane) -> None:
    one = desk(liar("liar", CHAIN))
    with pytest.raises(Unavailable, match="asked twice"):
        await all_of(one, CHAIN, lane=lane)
    assert statuses(one) == {"liar": "accused"}
    assert "asked twice" in reasons(one)["liar"]


async def test_a_contract_that_does_not_add_up_holds_up_no_other() -> None:
    """Whoever registers one from a block in its midst makes every node a liar, and these are everybody's nodes."""
    nodes = [Node(name, CHAIN) for name in "abc"]
    one = desk(*nodes, agreeing=2, patience=replace(QUICK, accused_alone=10, backoff_max=10))
    with pytest.raises(Unavailable, match="is next"):
        await one.fetch(SOURCE, 5, 9, Lane.LIVE, after=None, after_sequence=0)
    assert statuses(one) == dict.fromkeys("abc", "accused")
    await all_of(one, CHAIN)


@pytest.mark.parametrize("liar", [Silent, Leaving])
async def test_where_one_has_a_gap_another_is_asked(liar: type[Node]) -> None:
    lying = liar("liar", CHAIN)
    one = desk(lying, Node("good", CHAIN))
    await all_of(one, CHAIN)
    assert statuses(one) == {"liar": "accused", "good": "ok"}
    assert "asked twice" in reasons(one)["liar"]
    asked = len(lying.calls)
    await all_of(one, CHAIN)
    assert len(lying.calls) == asked, "it is not asked again"


@pytest.mark.parametrize("liar", [Silent, Leaving, Cutting, Inflating])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
async def test_healthy_lagging_and_lying(liar: type[Node], order: Sequence[int]) -> None:
    """No quorum without the one that lags, while it has not the blocks; no wrong row in any case, and a name."""
    good, late, lying = Node("good", CHAIN), Node("late", CHAIN, behind=10), liar("liar", CHAIN)
    one = desk(*((good, late, lying)[place] for place in order), agreeing=2)
    known = CHAIN.fork(10)
    await all_of(one, known)
    with pytest.raises(Unavailable):
        await all_of(one, CHAIN, first=11)
    late.behind = 0
    await all_of(one, CHAIN, first=11)
    await all_of(one, CHAIN)
    found = statuses(one)
    assert found["good"] == "ok"
    assert found["liar"] == "accused" or liar not in (Silent, Leaving), reasons(one)


async def test_what_a_quorum_says_of_the_same_blocks_convicts() -> None:
    one = desk(Inflating("liar", CHAIN), Node("a", CHAIN), Node("b", CHAIN), agreeing=2)
    for _ in range(3):
        await all_of(one, CHAIN)
    assert statuses(one)["liar"] == "accused"
    assert "another amount" in reasons(one)["liar"]


async def test_a_glitch_is_no_lie() -> None:
    """What a provider says right when it is asked again, it did not lie about."""
    glitches = Node("a", CHAIN)
    truth, left = glitches._told, [2]

    class Glitching(Node):
        def _told(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
            left[0] -= 1
            return events[:-1] if left[0] >= 0 and left[0] % 2 else truth(events)

    one = desk(Glitching("a", CHAIN))
    await all_of(one, CHAIN)
    assert statuses(one) == {"a": "ok"}
    assert left[0] == 0, "it was asked twice"


async def test_what_nobody_has_yet_is_not_waited_for_long() -> None:
    one = desk(Node("a", CHAIN), patience=replace(QUICK, live=60, behind=0.1))
    began = monotonic()
    with pytest.raises(Unavailable, match="block 21 is not here"):
        await one.fetch(SOURCE, 21, 21, Lane.LIVE, after=CHAIN.top, after_sequence=20)
    assert monotonic() - began < 2


async def test_headers_that_change_are_not_taken() -> None:
    other = CHAIN.fork(3)
    for _ in range(3):
        other.mine(1, salt="other")

    class Swaying(Node):
        async def blocks(self, numbers: Sequence[int]) -> Sequence[Block]:
            self.chain = other if self.chain is CHAIN else CHAIN
            return await super().blocks(numbers)

    with pytest.raises(Unavailable, match="change while they are read"):
        await desk(Swaying("a", CHAIN), patience=replace(QUICK, behind=0.1)).blocks([20], Lane.LIVE)
    two = desk(Node("a", CHAIN), Node("b", CHAIN), Node("c", other), agreeing=2)
    assert await two.blocks([1, 20], Lane.LIVE) == [CHAIN.mined[1].block, CHAIN.mined[20].block]


async def test_who_asks_for_peace_is_left_alone() -> None:
    limited = Node("a", CHAIN, fault=failing(Kind.RATE_LIMITED, 1, retry_after_seconds=60))
    one = desk(limited, Node("b", CHAIN))
    for _ in range(3):
        await all_of(one, CHAIN)
    assert len(limited.calls) <= 2


async def test_two_that_differ_are_no_quorum() -> None:
    with pytest.raises(Unavailable, match="says otherwise"):
        await all_of(desk(Inflating("liar", CHAIN), Node("a", CHAIN), agreeing=2), CHAIN)


async def test_the_head_is_what_enough_have() -> None:
    nodes = [Node("a", CHAIN), Node("b", CHAIN, behind=2), Node("c", CHAIN, behind=9)]
    for agreeing, behind in ((1, 0), (2, 2), (3, 9)):
        head = await desk(*nodes, agreeing=agreeing).head(Lane.LIVE)
        assert head.latest == CHAIN.mined[20 - behind].block
        assert head.finalized is None


async def test_final_is_what_the_most_careful_says() -> None:
    nodes = [Node("a", CHAIN, final_depth=0), Node("b", CHAIN, final_depth=12)]
    assert (await desk(*nodes, agreeing=2).head(Lane.LIVE)).finalized == 8


async def test_who_lags_is_known() -> None:
    one = desk(Node("a", CHAIN), Node("b", CHAIN, behind=9))
    await one.head(Lane.LIVE)
    await asyncio.sleep(0.01)
    await one.head(Lane.LIVE)
    assert statuses(one) == {"a": "ok", "b": "lagging"}
    assert {health.provider: health.head_number for health in one.health()} == {"a": 20, "b": 11}


async def test_ends_of_two_branches_have_their_ancestor() -> None:
    other = CHAIN.fork(3)
    for _ in range(3):
        other.mine(salt="other")
    head = await desk(Node("a", CHAIN), Node("b", other), agreeing=2).head(Lane.LIVE)
    assert head.latest.number in (16, 17)
    assert head.latest == CHAIN.mined[head.latest.number].block


async def test_a_fork_is_told() -> None:
    other = CHAIN.fork(3)
    for _ in range(5):
        other.mine(1, salt="other")
    one = desk(Node("a", other), Node("b", other), agreeing=2)
    with pytest.raises(Forked) as raised:
        await one.fetch(SOURCE, 20, 22, Lane.LIVE, after=CHAIN.mined[19].block, after_sequence=19)
    assert (raised.value.number, raised.value.found) == (19, other.mined[19].block.hash)
    assert sorted(raised.value.providers) == ["a", "b"]


async def test_one_is_not_believed_that_a_block_was_left_while_another_as_far_has_it() -> None:
    other = CHAIN.fork(3)
    for _ in range(3):
        other.mine(1, salt="other")
    one = desk(Node("a", other), Node("b", CHAIN, delay_seconds=0.01))
    await one.head(Lane.LIVE)
    with pytest.raises(Unavailable, match="left block 19"):
        await one.fetch(SOURCE, 20, 20, Lane.LIVE, after=CHAIN.mined[19].block, after_sequence=19)


async def test_one_is_not_believed_about_a_block_of_which_another_as_far_says_otherwise() -> None:
    other = CHAIN.fork(3)
    for _ in range(2):
        other.mine(1, salt="other")
    late = Node("late", other)
    one = desk(late, Node("b", CHAIN, delay_seconds=0.01))
    await one.head(Lane.LIVE)
    with pytest.raises(Unavailable, match="late and b have each another block 19"):
        await one.blocks([17, 19], Lane.LIVE)
    assert await one.blocks([16, 17], Lane.LIVE) == [CHAIN.mined[16].block, CHAIN.mined[17].block]
    for _ in range(6):
        other.mine(1, salt="other")
    await asyncio.sleep(0.01)
    await one.head(Lane.LIVE)
    assert statuses(one) == {"late": "ok", "b": "lagging"}
    assert await one.blocks([19], Lane.LIVE) == [other.mined[19].block], "who lags says nothing against it"


async def test_pieces_are_joined_in_order() -> None:
    chain = ModelChain.of(0, *[3, 0, 1, 0, 0] * 60)
    one = desk(Node("a", chain, cap=7), Node("b", chain, cap=50, delay_seconds=0.001), range_blocks_max=40)
    await all_of(one, chain)
    await all_of(one, chain, first=100)


async def test_without_state_another_is_asked_for_the_counter() -> None:
    pruned = Node("a", CHAIN, state_from=100)
    one = desk(pruned, Node("b", CHAIN, delay_seconds=0.01))
    await all_of(one, CHAIN)
    block = CHAIN.mined[5].block
    assert await one.counter(SOURCE, block, Lane.JOB) == 5
    assert await desk(pruned).counter(SOURCE, block, Lane.JOB) is None
    assert await one.books(SOURCE, ADDRESS, block, Lane.JOB) == Books(5, 3, 1, 2)
    assert await desk(pruned).books(SOURCE, ADDRESS, block, Lane.JOB) is None
    fetched = await desk(pruned).fetch(SOURCE, 0, 20, Lane.JOB, after=None, after_sequence=0)
    assert fetched.counter is None
    assert len(fetched.events) == 20


async def test_a_piece_cut_short_without_a_counter_is_found_by_the_next() -> None:
    class Once(Node):
        cut = True

        def _told(self, events):  # type: ignore[no-untyped-def]
            if self.cut and events:
                self.cut = False
                return events[:-1]
            return events

    chain = ModelChain.of(0, *[1] * 200)
    one = desk(Once("a", chain, state_from=1_000), range_blocks_max=20)
    fetched = await one.fetch(SOURCE, 0, 200, Lane.JOB, after=None, after_sequence=0)
    assert fetched.events == chain.events(0, 200)
    assert statuses(one) == {"a": "ok"}


async def test_what_came_before_is_asked_for_where_it_is_not_known() -> None:
    one = desk(Node("a", CHAIN))
    fetched = await one.fetch(SOURCE, 10, 15, Lane.JOB, after=None, after_sequence=None)
    assert fetched.events == CHAIN.events(10, 15)
    with pytest.raises(Unavailable):
        await desk(Silent("liar", CHAIN)).fetch(SOURCE, 10, 15, Lane.JOB, after=None, after_sequence=None)


async def test_the_evidence_against_who_is_accused_stands() -> None:
    lying = Silent("liar", CHAIN)
    one = desk(lying, patience=replace(QUICK, live=0.1, job=0.1))
    with pytest.raises(Unavailable):
        await all_of(one, CHAIN)
    lying.delay_seconds = 60
    with pytest.raises(Unavailable):
        await all_of(one, CHAIN)
    assert statuses(one) == {"liar": "accused"}
    assert "asked twice" in reasons(one)["liar"]
