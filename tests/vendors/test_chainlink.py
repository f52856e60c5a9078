"""Chainlink: everything that a call which succeeds can still be wrong about."""

from __future__ import annotations

import time
from typing import Any

import pytest

from activities.vendors.chainlink import ChainlinkPrices
from activities.vendors.guard import Circuit, Limits
from domain.prices.model import Policy
from domain.prices.validity import judge
from kit.clock import now
from kit.pricing import Chainlink
from tests.domain.prices import dollars
from tests.vendors.node import ETH_USD, SEQUENCER, Aggregator, Node
from tests.vendors.server import Asked, Reply, Vendor

FEED = {"address": ETH_USD, "decimals": 8, "heartbeat_seconds": 3_600, "min": "1", "max": "100000"}


def source(served: Vendor, feeds: dict[str, Any] | None = None, **changes: Any) -> ChainlinkPrices:
    config = Chainlink(kind="chainlink", url=served.url, feeds=feeds or {"ETH": FEED}, **changes)
    return ChainlinkPrices("chainlink", config, Limits(timeout_seconds=5, calls_per_minute=1_000), served.url)


async def test_a_round_is_a_price_and_an_age(served: Vendor) -> None:
    node = Node(served)
    chainlink = source(served)
    [eth] = await chainlink.read()
    assert (eth.fault, eth.price) == (None, dollars("2345.67"))
    assert eth.observed_at is not None
    assert eth.observed_at.timestamp() == node.eth.updated_at
    assert (eth.max_age_seconds, eth.feed) == (3_660, f"chainlink:1:{ETH_USD.lower()}:8:USD")
    before = len(served.asked)
    await chainlink.read()
    assert len(served.asked) == before + 1, "chain and decimals are believed for a while"
    await chainlink.close()


async def test_a_round_that_is_stale_is_judged_by_the_feeds_own_heartbeat(served: Vendor) -> None:
    node = Node(served)
    at = now().replace(microsecond=0)
    node.eth.updated_at = int(at.timestamp()) - 3_700
    chainlink = source(served)
    [eth] = await chainlink.read()
    left_out = judge(eth, Policy(), {}, at).left_out
    await chainlink.close()
    assert left_out is not None
    assert left_out.startswith("too old: 3700 s, 3660 s at most")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"answer": 0}, "not positive: 0"),
        ({"answer": -5}, "not positive: -5"),
        ({"decimals": 18}, "the feed has 18 decimals, the configuration says 8"),
        ({"updated_at": 0}, "is not complete"),
        ({"started_at": 0}, "is not complete"),
        ({"answered_in": 110_680_464_442_257_319_999}, "is not complete"),
        ({"answer": 10**8}, "at or below the least that the feed can say: 1"),
        ({"answer": 100_000 * 10**8}, "at or above the most that the feed can say: 1"),
        ({"answer": 2**255 - 1}, "no price"),
    ],
)
async def test_a_round_that_says_nothing_says_why(served: Vendor, changes: dict[str, int], why: str) -> None:
    node = Node(served)
    for name, value in changes.items():
        setattr(node.eth, name, value)
    chainlink = source(served)
    [eth] = await chainlink.read()
    assert eth.fault is not None
    assert why in eth.fault
    await chainlink.close()


async def test_a_feed_at_fault_leaves_the_others_alone(served: Vendor) -> None:
    Node(served)
    nowhere = FEED | {"address": "0x" + "ab" * 20}
    chainlink = source(served, {"ETH": FEED, "BTC": nowhere})
    eth, btc = await chainlink.read()
    assert eth.fault is None
    assert btc.fault == "the call failed: BadFunctionCallOutput"
    await chainlink.close()


async def test_a_node_of_another_chain_is_not_believed(served: Vendor) -> None:
    Node(served, chain_id=10)
    chainlink = source(served)
    assert [each.fault for each in await chainlink.read()] == ["the node is of chain 10, chain_id says 1"]
    assert chainlink.circuit is Circuit.OPEN
    await chainlink.close()


@pytest.mark.parametrize(
    ("answer", "seconds_ago", "why"),
    [(0, 7_200, None), (1, 7_200, "is down"), (0, 600, "less than its grace period")],
)
async def test_a_rollup_whose_sequencer_was_down(
    served: Vendor, answer: int, seconds_ago: int, why: str | None
) -> None:
    node = Node(served, chain_id=42_161)
    status = Aggregator(answer=answer, started_at=int(time.time()) - seconds_ago)
    node.contracts[SEQUENCER.lower()] = status
    chainlink = source(served, chain_id=42_161, sequencer=SEQUENCER)
    [eth] = await chainlink.read()
    assert (eth.fault is None) == (why is None)
    assert (why or "") in (eth.fault or "")
    await chainlink.close()


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply("", 429), "HTTP 429: too many calls"),
        (Reply("", 401), "HTTP 401: the key"),
        (Reply("", 502), "HTTP 502"),
        (Reply("<html>"), "HTTP 200 with a body that is no JSON"),
        (Reply([]), "HTTP 200 with something that is no JSON-RPC"),
        (Reply({"jsonrpc": "2.0", "id": 1}), "HTTP 200 with something that is no JSON-RPC"),
        (Reply({"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "limit"}}), "the node says: too many"),
        (
            Reply({"jsonrpc": "2.0", "id": 1, "error": {"code": 3, "message": "execution reverted"}}),
            "the call failed: ",
        ),
        (Reply({"jsonrpc": "2.0", "id": 1, "result": "0x1234"}), "the call failed: "),
        (Reply({"jsonrpc": "2.0", "id": 1, "result": None}), "the call failed: "),
        (Reply({"jsonrpc": "2.0", "id": 1, "result": 7}), "the call failed: "),
    ],
)
async def test_a_node_that_answers_otherwise(served: Vendor, reply: Reply, why: str) -> None:
    node = Node(served)
    served.answer = lambda asked: node.answer(asked) if _is_chain(asked) else reply
    chainlink = source(served)
    [eth] = await chainlink.read()
    assert (eth.fault or "").startswith(why)
    await chainlink.close()


def _is_chain(asked: Asked) -> bool:
    return bool(asked.json()["method"] == "eth_chainId")
