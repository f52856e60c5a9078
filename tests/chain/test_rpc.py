"""What a node may do on the wire: whatever it is, it is one kind of fault, in time, and without its address."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.chain.ports import ChainFault, FaultKind
from activities.vendors.evm import EvmReader, Header
from activities.vendors.rpc import Rpc
from activities.vendors.utxo import UtxoReader
from domain.chain import Block
from kit.evm import interface
from tests.chain.logs import CONTRACT, Told, written
from tests.chain.reading import contract_source, script_source
from tests.vendors.server import Asked, Reply, Vendor, vendor

SOURCE = contract_source(CONTRACT.hex())
BLOCK = Block(7, bytes(31) + b"\x08", bytes(31) + b"\x07", 1_700_000_000)
KEY = "s3cr3t-k3y"


@pytest.fixture
async def node() -> AsyncIterator[Vendor]:
    async with vendor() as made:
        yield made


@pytest.fixture
async def reader(node: Vendor) -> AsyncIterator[EvmReader]:
    reader = EvmReader("node", f"{node.url}/{KEY}", timeout_seconds=0.5, max_body_bytes=100_000, batch=10)
    yield reader
    await reader.close()


def results(answers: Callable[[str, list[Any]], Any], *, shuffled: bool = False) -> Callable[[Asked], Reply]:
    """A node that answers each call, alone or in a batch."""

    def answer(asked: Asked) -> Reply:
        calls = asked.json()
        one = isinstance(calls, dict)
        told = [
            {"jsonrpc": "2.0", "id": call["id"], **answers(call["method"], call["params"])}
            for call in ([calls] if one else calls)
        ]
        if shuffled:
            told.reverse()
        return Reply(told[0] if one else told)

    return answer


def header(number: int) -> dict[str, str]:
    return {
        "number": hex(number),
        "hash": f"0x{number + 1:064x}",
        "parentHash": f"0x{number:064x}",
        "timestamp": hex(1_700_000_000),
        "extraData": "0x",
    }


def headers(method: str, params: list[Any]) -> dict[str, Any]:
    assert method == "eth_getBlockByNumber", method
    return {"result": header(99 if isinstance(params[0], str) and params[0].isalpha() else int(params[0], 16))}


async def fault_of(reader: EvmReader, node: Vendor, reply: Reply | None = None) -> ChainFault:
    if reply is not None:
        node.answer = lambda _: reply
    began = time.monotonic()
    with pytest.raises(ChainFault) as fault:
        await reader.events(SOURCE, 0, 99)
    assert time.monotonic() - began < 5
    assert KEY not in fault.value.message
    assert "127.0.0.1" not in fault.value.message
    return fault.value


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(silent=True), FaultKind.UNAVAILABLE),
        (Reply(b"{", hang=True), FaultKind.UNAVAILABLE),
        (Reply(reset=True), FaultKind.UNAVAILABLE),
        (Reply(endless=True), FaultKind.TOO_MUCH),
        (Reply(b"x" * 100_001), FaultKind.TOO_MUCH),
        (Reply(b""), FaultKind.NONSENSE),
        (Reply(b"<html>busy</html>"), FaultKind.NONSENSE),
        (Reply(b'{"jsonrpc":"2.0","id":1,"result":[{"address":"0x'), FaultKind.NONSENSE),
        (Reply(b'{"id":1,"result":' + b"[" * 50_000), FaultKind.NONSENSE),
        (Reply(b'{"a":' * 15_000), FaultKind.NONSENSE),
        (Reply({"jsonrpc": "2.0", "id": 77, "result": []}), FaultKind.NONSENSE),
        (Reply({"jsonrpc": "2.0", "id": 1, "result": None}), FaultKind.NONSENSE),
        (Reply({"jsonrpc": "2.0", "id": 1}), FaultKind.NONSENSE),
        (Reply({"jsonrpc": "2.0", "id": 1, "result": {"address": "0x"}}), FaultKind.NONSENSE),
        (Reply([]), FaultKind.NONSENSE),
        (Reply(7), FaultKind.NONSENSE),
        (Reply(b"gone", 502), FaultKind.UNAVAILABLE),
        (Reply(b"", 503), FaultKind.UNAVAILABLE),
        (Reply(b"slow down", 429, {"Retry-After": "9"}), FaultKind.RATE_LIMITED),
        (Reply(b"", 401), FaultKind.REFUSED),
        (Reply(b"", 302, {"Location": "http://127.0.0.1:1/"}), FaultKind.UNAVAILABLE),
        (Reply({"error": f"no such key: {KEY}"}, 403), FaultKind.REFUSED),
        (Reply({"message": "Too Many Requests"}, 429), FaultKind.RATE_LIMITED),
        (Reply({"code": -32005, "message": "rate limit exceeded"}), FaultKind.RATE_LIMITED),
        (Reply({"id": None, "error": {"code": -32603, "message": None, "data": {"x": [1]}}}), FaultKind.UNAVAILABLE),
        (Reply({"id": None, "error": {"code": "odd", "message": 7}}), FaultKind.UNAVAILABLE),
    ],
)
async def test_whatever_a_node_does_is_a_fault_in_time(
    node: Vendor, reader: EvmReader, reply: Reply, kind: FaultKind
) -> None:
    fault = await fault_of(reader, node, reply)
    assert fault.kind is kind, fault.message
    assert fault.retry_after_seconds == (9 if reply.headers.get("Retry-After") else None)


async def test_a_body_that_grows_when_it_is_unpacked_is_bounded(node: Vendor, reader: EvmReader) -> None:
    packed = gzip.compress(b'{"jsonrpc":"2.0","id":1,"result":"' + b"0" * 50_000_000, 1)
    fault = await fault_of(reader, node, Reply(packed, headers={"Content-Encoding": "gzip"}))
    assert fault.kind in (FaultKind.TOO_MUCH, FaultKind.UNAVAILABLE)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-40_000, 40_000) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
_ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0"),
        "id": st.sampled_from([7, 8, "7", None]) | _JSON,
        "result": _JSON | st.just(header(7)),
        "error": _JSON | st.fixed_dictionaries({}, optional={"code": _JSON, "message": _JSON, "data": _JSON}),
        "message": _JSON,
        "code": _JSON,
    },
)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(_ANSWERS, st.lists(_ANSWERS, max_size=3), _JSON, st.binary(max_size=60)),
    st.sampled_from([200, 200, 400, 429, 500, 503]),
    st.sampled_from([["eth_getBlockByNumber"], ["eth_getBlockByNumber", "eth_getLogs"]]),
)
def test_no_body_is_anything_but_results_or_faults(content: Any, status: int, methods: list[str]) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    rpc = Rpc("http://node.example/", timeout_seconds=1, max_body_bytes=1)
    try:
        found = rpc.results(7, methods, Header, status, None, body)
    except ChainFault as fault:
        assert fault.message
        return
    assert len(found) == len(methods)
    assert all(each is None or isinstance(each, Header | ChainFault) for each in found)


async def test_a_node_that_is_not_there_is_unavailable(node: Vendor) -> None:
    reader = EvmReader("gone", "http://127.0.0.1:1/", timeout_seconds=1)
    assert (await fault_of(reader, node)).kind is FaultKind.UNAVAILABLE
    await reader.close()


async def test_a_batch_may_be_answered_in_any_order_and_is_cut_into_requests(node: Vendor, reader: EvmReader) -> None:
    node.answer = results(headers, shuffled=True)
    blocks = await reader.blocks(range(25))
    assert [block.number for block in blocks] == list(range(25))
    assert [len(asked.json()) for asked in node.asked] == [10, 10, 5]
    assert list(await reader.blocks([3])) == [blocks[3]]
    assert isinstance(node.asked[-1].json(), dict)


async def test_a_batch_with_a_hole_or_another_header_is_nonsense(node: Vendor, reader: EvmReader) -> None:
    whole = results(headers)
    node.answer = lambda asked: Reply(json.loads(whole(asked).content)[:-1])
    with pytest.raises(ChainFault) as fault:
        await reader.blocks([1, 2, 3])
    assert fault.value.kind is FaultKind.NONSENSE
    node.answer = results(lambda method, params: {"result": header(5)})
    with pytest.raises(ChainFault) as fault:
        await reader.blocks([4])
    assert fault.value.kind is FaultKind.NONSENSE


async def test_one_refusal_in_a_batch_is_that_of_the_whole(node: Vendor, reader: EvmReader) -> None:
    limited = {"error": {"code": 429, "message": "compute units per second"}}
    node.answer = results(lambda method, params: limited if params[0] == "0x2" else headers(method, params))
    with pytest.raises(ChainFault) as fault:
        await reader.blocks([1, 2, 3])
    assert fault.value.kind is FaultKind.RATE_LIMITED


async def test_who_takes_no_large_batch_is_asked_in_smaller_ones(node: Vendor, reader: EvmReader) -> None:
    one_by_one = results(headers)

    def answer(asked: Asked) -> Reply:
        if isinstance(asked.json(), list):
            return Reply({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batch too large"}})
        return one_by_one(asked)

    node.answer = answer
    with pytest.raises(ChainFault) as fault:
        await reader.blocks(range(10))
    assert fault.value.kind is FaultKind.TOO_MUCH
    assert len(await reader.blocks(range(10))) == 10
    assert (await reader.head()).latest.number == 99


async def test_a_node_that_takes_no_batch_at_all_has_a_head(node: Vendor, reader: EvmReader) -> None:
    one_by_one = results(headers)

    def answer(asked: Asked) -> Reply:
        if isinstance(asked.json(), list):
            return Reply({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Invalid Request"}}, 400)
        return one_by_one(asked)

    node.answer = answer
    assert [(await reader.head()).finalized for _ in range(2)] == [99, 99]
    assert len(node.asked) == 1 + 2 + 2
    node.say({"error": "no such key"}, 401)
    with pytest.raises(ChainFault) as fault:
        await reader.head()
    assert fault.value.kind is FaultKind.REFUSED


async def test_a_node_that_knows_no_finality_has_a_head(node: Vendor, reader: EvmReader) -> None:
    unknown = {"error": {"code": -32000, "message": "finalized block not found"}}
    answers = [unknown, {"result": None}, {"error": {"code": -32602, "message": "invalid argument 0"}}]
    node.answer = results(lambda method, params: answers[0] if params[0] == "finalized" else headers(method, params))
    while answers:
        head = await reader.head()
        assert (head.latest.number, head.finalized) == (99, None)
        del answers[0]
    node.answer = results(lambda method, params: {"result": header(100 if params[0] == "finalized" else 99)})
    with pytest.raises(ChainFault) as fault:
        await reader.head()
    assert fault.value.kind is FaultKind.NONSENSE


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"result": f"0x{5:064x}"}, 5),
        ({"result": "0x"}, None),
        ({"error": {"code": -32000, "message": "missing trie node 0a (path )"}}, None),
        ({"error": {"code": -32000, "message": "header not found"}}, FaultKind.BEHIND),
        ({"result": "0x05"}, FaultKind.NONSENSE),
        ({"result": None}, FaultKind.NONSENSE),
        ({"result": f"0x{2**63:064x}"}, FaultKind.NONSENSE),
        ({"result": f"0x{5:064x}00"}, FaultKind.NONSENSE),
    ],
)
async def test_a_counter_is_a_number_or_nothing(
    node: Vendor, reader: EvmReader, answer: dict[str, Any], expected: object
) -> None:
    node.answer = results(lambda method, params: answer)
    try:
        found: object = await reader.counter(SOURCE, BLOCK)
    except ChainFault as fault:
        found = fault.kind
    assert found == expected
    call, at = node.asked[0].json()["params"]
    assert call == {"to": f"0x{CONTRACT.hex()}", "data": interface().selectors["sequence()"]}
    assert at == {"blockHash": f"0x{BLOCK.hash.hex()}"}


async def test_a_limit_that_is_not_below_what_was_asked_for_is_not_believed(node: Vendor, reader: EvmReader) -> None:
    for limit, believed in (("50", 50), ("100", None), ("10000", None)):
        text = f"ranges over {limit} blocks are not supported on free plan"
        fault = await fault_of(reader, node, Reply({"id": None, "error": {"code": 35, "message": text}}, 400))
        assert (fault.kind, fault.limit_blocks) == (FaultKind.TOO_WIDE, believed)


async def test_logs_of_a_block_are_asked_for_by_its_hash(node: Vendor, reader: EvmReader) -> None:
    logs = written([Told("Cancelled", (1, 5, 6))], [(BLOCK.number, 0)])
    node.answer = results(lambda method, params: {"result": logs})
    (event,) = await reader.events_of(SOURCE, BLOCK)
    assert (event.block_hash, event.sequence) == (BLOCK.hash, 1)
    asked = node.asked[0].json()["params"]
    assert asked == [{"address": f"0x{CONTRACT.hex()}", "blockHash": f"0x{BLOCK.hash.hex()}"}]


async def test_a_user_and_a_password_are_sent_and_never_told(node: Vendor) -> None:
    reader = UtxoReader("node", node.url.replace("//", f"//user:{KEY}@"), timeout_seconds=0.5)
    node.say({"id": None, "error": {"code": -1, "message": f"{node.url}: {KEY}"}}, 500)
    with pytest.raises(ChainFault) as fault:
        await reader.events(script_source([b"\x51"], "bip122:0"), 0, 1)
    assert node.asked[0].headers["authorization"].startswith("Basic ")
    assert KEY not in fault.value.message
    assert "127.0.0.1" not in fault.value.message
    await reader.close()
