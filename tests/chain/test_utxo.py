"""Blocks prove themselves, and no spend of a script of interest is missed, whatever its kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.chain.ports import ChainFault, FaultKind
from activities.vendors.utxo import UtxoReader
from activities.vendors.utxoblocks import (
    NOWHERE,
    BlockInvalid,
    Input,
    merkle_root,
    read_block,
    read_header,
    read_transaction,
)
from activities.vendors.utxoscripts import Spenders, pushes
from kit import utxo
from tests.chain.reading import script_source
from tests.litecoin import MATURITY, Litecoin, running
from tests.vendors.server import Asked, Reply, vendor

#: Bitcoin's first block, as every node has it.
GENESIS = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51"
    "323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c0101000000010000000000000000000000000000000000000000000000000000000000000000"
    "ffffffff4d04ffff001d0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f662073"
    "65636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828"
    "e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"
)
GENESIS_HASH = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Litecoin]:
    with running(tmp_path_factory.mktemp("litecoin")) as node:
        node.rpc("createwallet", "")
        node.miner = node.rpc("getnewaddress")
        yield node


@pytest.fixture(scope="module")
def coins(node: Litecoin) -> dict[str, bytes]:
    """By its descriptor, the script of a coin in each kind of script that the wallet can sign for. All are spent."""
    key = node.rpc("getaddressinfo", node.miner)["pubkey"]
    for kind in ("legacy", "p2sh-segwit", "bech32"):
        node.rpc("addmultisigaddress", 1, [key], "", kind)
    descriptors = [
        *("pk({})", "pkh({})", "wpkh({})", "sh(wpkh({}))"),
        *("multi(1,{})", "sh(multi(1,{}))", "wsh(multi(1,{}))", "sh(wsh(multi(1,{})))"),
    ]
    found: dict[str, bytes] = {}
    paid: list[dict[str, Any]] = []
    for descriptor in descriptors:
        checked = node.rpc("getdescriptorinfo", descriptor.format(key))["descriptor"]
        (mined,) = node.rpc("generatetodescriptor", 1, checked)
        coinbase = node.rpc("getblock", mined, 2)["tx"][0]
        found[descriptor] = bytes.fromhex(coinbase["vout"][0]["scriptPubKey"]["hex"])
        paid.append({"txid": coinbase["txid"], "vout": 0})
    node.mine(MATURITY + 2)
    for each in paid:
        node.spend([each], {node.rpc("getnewaddress"): "49"})
    # Spent again in the block in which it came into being.
    chained = node.spend([node.unspent(node.miner)[0]], {node.miner: "49"})
    node.spend([{"txid": chained, "vout": 0}], {node.rpc("getnewaddress"): "48"})
    node.mine()
    return found


@pytest.fixture
async def reader(node: Litecoin) -> AsyncIterator[UtxoReader]:
    reader = UtxoReader("litecoind", node.url)
    yield reader
    await reader.close()


async def test_a_spend_of_every_kind_of_script_is_seen(coins: dict[str, bytes], reader: UtxoReader) -> None:
    assert len(set(coins.values())) == len(coins)
    head = (await reader.head()).latest.number
    for descriptor, script in coins.items():
        source = script_source([script], await reader.network())
        events = await reader.events(source, 0, head)
        told = [(event.kind, event.amount) for event in events if event.block_number <= len(coins)]
        spent = [(event.kind, event.amount) for event in events if event.kind == utxo.SPENT]
        assert (utxo.RECEIVED, 50 * 10**8) in told, descriptor
        assert spent[0] == (utxo.SPENT, 50 * 10**8), descriptor
        for event in events:
            said = utxo.decode(event.kind, event.payload)
            assert (said["script"], said["amount"]) == (script.hex(), event.amount)


async def test_what_is_spent_in_the_block_in_which_it_came_is_seen(
    node: Litecoin, coins: dict[str, bytes], reader: UtxoReader
) -> None:
    head = (await reader.head()).latest
    script = bytes.fromhex(node.rpc("getaddressinfo", node.miner)["scriptPubKey"])
    events = await reader.events_of(script_source([script], "bip122:0"), head)
    spent = [utxo.decode(event.kind, event.payload) for event in events if event.kind == utxo.SPENT]
    (came,) = [event for event in events if event.kind == utxo.RECEIVED and event.amount == 49 * 10**8]
    assert (came.tx_hash.hex(), 49 * 10**8) in [(each["spent_tx_hash"], each["amount"]) for each in spent]


async def test_a_node_without_an_index_refuses_what_it_cannot_say(
    coins: dict[str, bytes], tmp_path: Any, node: Litecoin
) -> None:
    """Its blocks are read, but nobody could say what their inputs spend."""
    missing = {
        "code": -5,
        "message": "No such mempool transaction. Use -txindex to enable blockchain transaction queries",
    }
    async with vendor() as proxy:

        def answer(asked: Asked) -> Reply:
            calls = asked.json()
            told = [
                {"id": call["id"], "error": missing}
                if call["method"] == "getrawtransaction"
                else {"id": call["id"], "result": node.rpc(call["method"], *call["params"]), "error": None}
                for call in (calls if isinstance(calls, list) else [calls])
            ]
            return Reply(told if isinstance(calls, list) else told[0])

        proxy.answer = answer
        reader = UtxoReader("proxy", proxy.url)
        head = node.rpc("getblockcount")
        source = script_source([coins["wpkh({})"]], "bip122:0")
        assert len(await reader.events(source, 0, head - 1)) >= 1
        with pytest.raises(ChainFault) as fault:
            await reader.events(source, head, head)
        assert fault.value.kind is FaultKind.REFUSED
        await reader.close()


async def test_a_node_that_leaves_a_transaction_out_is_found_out(node: Litecoin, coins: dict[str, bytes]) -> None:
    """Whatever it changes in a block, in a header or in what was spent."""

    async def refused(method: str, change: Any) -> str:
        async with vendor() as proxy:

            def answer(asked: Asked) -> Reply:
                calls = asked.json()
                told = []
                for call in calls if isinstance(calls, list) else [calls]:
                    result = node.rpc(call["method"], *call["params"])
                    told.append({"id": call["id"], "result": change(result) if call["method"] == method else result})
                return Reply(told if isinstance(calls, list) else told[0])

            proxy.answer = answer
            reader = UtxoReader("proxy", proxy.url)
            source = script_source([coins["wpkh({})"]], "bip122:0")
            number = node.rpc("getblockcount")
            with pytest.raises(ChainFault) as fault:
                await (reader.blocks([number]) if method == "getblockheader" else reader.events(source, number, number))
            await reader.close()
            assert fault.value.kind is FaultKind.NONSENSE
            return fault.value.message

    whole = node.rpc("getblock", node.rpc("getbestblockhash"), 0)
    assert "not those of the header" in await refused("getblock", lambda raw: raw.replace(raw[-40:-20], "00" * 10))
    assert "behind" in await refused("getblock", lambda raw: raw + "00")
    assert await refused("getblock", lambda raw: raw[:-2])
    assert "another hash" in await refused("getblock", lambda raw: node.rpc("getblock", node.rpc("getblockhash", 3), 0))
    assert "another hash" in await refused("getblockheader", lambda raw: whole[:8] + raw[8:-2] + "77")
    assert "another id" in await refused("getrawtransaction", lambda raw: raw[:-2] + "11")
    assert await refused("getblock", lambda raw: "zz")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GENESIS) - 1), st.integers(1, 255))
def test_a_block_with_any_byte_changed_is_another_or_none(at: int, change: int) -> None:
    header, (coinbase,) = read_block(GENESIS)
    assert header.hash.hex() == GENESIS_HASH
    assert coinbase.txid == header.merkle_root
    assert [output.value for output in coinbase.outputs] == [50 * 10**8]
    damaged = GENESIS[:at] + bytes([GENESIS[at] ^ change]) + GENESIS[at + 1 :]
    try:
        other, _ = read_block(damaged)
    except BlockInvalid:
        return
    assert at < 80
    assert other.hash != header.hash


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(GENESIS)), st.binary(max_size=40))
def test_a_block_that_is_cut_off_or_goes_on_is_none(at: int, more: bytes) -> None:
    damaged = GENESIS[:at] + more
    if damaged != GENESIS:
        with pytest.raises(BlockInvalid):
            read_block(damaged)


def test_a_block_cannot_be_told_with_its_last_transactions_twice() -> None:
    ids = [bytes([number]) * 32 for number in range(1, 7)]
    assert len({merkle_root(ids[:count]) for count in range(1, 7)}) == 6
    with pytest.raises(BlockInvalid, match="twice"):
        merkle_root([*ids, ids[4], ids[5]])
    with pytest.raises(BlockInvalid, match="twice"):
        merkle_root([ids[0], ids[0]])


def test_the_transaction_that_ties_litecoins_extension_is_read() -> None:
    """By its serialization (ltc-project/litecoin, primitives/transaction.h): a flag, and an empty extension behind."""
    plain = GENESIS[81:]
    tied = plain[:4] + b"\x00\x08" + plain[4:-4] + b"\x00" + plain[-4:]
    assert read_transaction(tied).txid == read_transaction(plain).txid
    assert read_transaction(tied).extended
    _, (coinbase,) = read_block(GENESIS[:81] + tied + b"any extension block")
    assert coinbase.extended
    for wrong in (plain[:4] + b"\x00\x08" + plain[4:-4] + b"\x01" + plain[-4:], plain[:4] + b"\x00\x02" + plain[4:]):
        with pytest.raises(BlockInvalid):
            read_transaction(wrong)


def test_a_header_has_eighty_bytes() -> None:
    assert read_header(GENESIS[:80]).at_seconds == 1_231_006_505
    for size in (79, 81):
        with pytest.raises(BlockInvalid):
            read_header(GENESIS[:size])


def test_inputs_show_for_whom_they_cannot_be() -> None:
    key_hash, script_hash = bytes(20), bytes(32)
    signature, key = bytes(71), b"\x02" + bytes(32)
    pushed = bytes([71]) + signature + bytes([33]) + key
    by_key = Input(b"\x01" * 32, 0, b"", (signature, key))
    by_old_key = Input(b"\x01" * 32, 0, pushed, ())
    by_root = Input(b"\x01" * 32, 0, b"", (bytes(64),))
    coinbase = Input(NOWHERE, 2**32 - 1, b"\x01\x01", (bytes(32),))
    others = [
        b"\x76\xa9\x14" + key_hash + b"\x88\xac",
        b"\xa9\x14" + key_hash + b"\x87",
        b"\x00\x14" + key_hash,
        b"\x00\x20" + script_hash,
    ]
    for script in others:
        assert not any(Spenders([script]).may_spend(each) for each in (by_key, by_old_key, by_root, coinbase))
    taproot = Spenders([b"\x51\x20" + script_hash])
    assert [taproot.may_spend(each) for each in (by_key, by_old_key, by_root)] == [True, False, True]
    bare = Spenders([bytes([33]) + key + b"\xac"])
    assert [bare.may_spend(each) for each in (by_key, by_old_key, coinbase)] == [False, True, False]
    assert list(pushes(pushed)) == [signature, key]
    assert list(pushes(b"\x00\x4c\x02ab\x76\x4d\x01\x00c\x4e\x01\x00\x00\x00d\x05e")) == [b"", b"ab", b"c", b"d", b"e"]


@pytest.mark.parametrize(("kind", "payload"), [("received", bytes(11)), ("spent", bytes(47)), ("Funded", bytes(96))])
def test_a_payload_that_is_none_is_not_read(kind: str, payload: bytes) -> None:
    with pytest.raises(utxo.PayloadInvalid):
        utxo.decode(kind, payload)
