"""One node of a UTXO chain, through Bitcoin Core's RPC, which its kin have too.

Blocks come as their bytes (verbosity 0): their hash proves what is in them, their length how many transactions. What an
input spends is not in its block. Of verbosity 3, which would say it, nothing could be proven, and older nodes do not
have it; so the few inputs that could spend a script of interest are looked up (``getrawtransaction``, which needs
``txindex=1``), and the transaction that comes back must have the id that the input names.
"""

from __future__ import annotations

from binascii import Error as HexInvalid
from binascii import unhexlify
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from activities.chain.ports import ChainFault, FaultKind
from activities.vendors.evmlogs import nonsense
from activities.vendors.rpc import Call, Rpc
from activities.vendors.utxoblocks import (
    BlockInvalid,
    Header,
    Input,
    Output,
    Transaction,
    read_block,
    read_header,
    read_transaction,
)
from activities.vendors.utxoscripts import Spenders
from domain.chain import Block, Books, Event, Head, Source
from kit import utxo

#: Calls in one request, and blocks in one: with two million bytes each they stay below what a body may have.
BATCH: Final = 100
BLOCKS: Final = 8
_HASH_BYTES: Final = 32


class _Tip(msgspec.Struct):
    """Of ``getblockchaininfo``."""

    blocks: int
    bestblockhash: str


class _Place(msgspec.Struct):
    """Of ``getblockheader``: fewer than none ``confirmations`` are those of a block that was left."""

    height: int
    confirmations: int


class UtxoReader:
    """See ``activities.chain.ports.ChainReader``. Sources are output scripts; there is no number of events to compare,
    and no block that the chain calls final."""

    def __init__(self, name: str, url: str, *, timeout_seconds: float = 10.0, max_body_bytes: int = 64_000_000) -> None:
        self._name = name
        self._rpc = Rpc(url, timeout_seconds=timeout_seconds, max_body_bytes=max_body_bytes)

    @property
    def name(self) -> str:
        """What the configuration calls the provider."""
        return self._name

    async def network(self) -> str:
        """The first block's hash, as CAIP-2 and BIP 122 write it."""
        async with self._rpc.deadline():
            (genesis,) = await self._hashes([0])
        return f"bip122:{genesis.hex()[:32]}"

    async def head(self) -> Head:
        """The last block of the best chain."""
        async with self._rpc.deadline():
            tip = await self._rpc.call("getblockchaininfo", [], _Tip)
            if tip is None:
                raise nonsense("nothing about the chain")
            best = _octets(tip.bestblockhash)
            (header,) = await self._headers([best])
        return Head(_block(tip.blocks, header))

    async def blocks(self, numbers: Sequence[int]) -> Sequence[Block]:
        """The headers at these heights: two requests for each batch of them."""
        found: list[Block] = []
        async with self._rpc.deadline():
            for at in range(0, len(numbers), BATCH):
                wanted = numbers[at : at + BATCH]
                headers = await self._headers(await self._hashes(wanted))
                found.extend(map(_block, wanted, headers))
        return found

    async def events(self, source: Source, first: int, last: int) -> Sequence[Event]:
        """Everything that pays or spends one of the scripts in these blocks, each of which proves itself."""
        found: list[Event] = []
        before: Header | None = None
        spenders = Spenders(source.addresses)
        async with self._rpc.deadline():
            for at in range(first, last + 1, BLOCKS):
                numbers = range(at, min(at + BLOCKS, last + 1))
                for number, block_hash, raw in await self._raw(numbers):
                    header, transactions = _proven(raw, block_hash)
                    if before is not None and header.parent_hash != before.hash:
                        raise ChainFault(FaultKind.BEHIND, f"the chain changed below block {number} meanwhile")
                    found.extend(await self._of(source, spenders, number, header, transactions))
                    before = header
        return found

    async def events_of(self, source: Source, block: Block) -> Sequence[Event]:
        """The same of exactly this block, where it is in the node's best chain."""
        async with self._rpc.deadline():
            place = await self._rpc.call("getblockheader", [block.hash.hex()], _Place)
            if place is None or place.confirmations < 0:
                raise ChainFault(FaultKind.BEHIND, f"it has left block {block.hash.hex()}")
            if place.height != block.number:
                raise nonsense(f"block {block.number} has the height {place.height}")
            raw = await self._rpc.call("getblock", [block.hash.hex(), 0], str)
            header, transactions = _proven(raw or "", block.hash)
            return await self._of(source, Spenders(source.addresses), block.number, header, transactions)

    async def counter(self, source: Source, block: Block) -> int | None:  # noqa: ARG002 - the port's
        """None: scripts count nothing."""
        return None

    async def books(self, source: Source, token: bytes, block: Block) -> Books | None:  # noqa: ARG002 - the port's
        """None: scripts keep none."""
        return None

    async def close(self) -> None:
        """Let go of connections; a later call opens others."""
        await self._rpc.close()

    async def _hashes(self, numbers: Sequence[int]) -> list[bytes]:
        return [_octets(found) for found in await self._all([("getblockhash", [number]) for number in numbers])]

    async def _headers(self, hashes: Sequence[bytes]) -> list[Header]:
        raw = await self._all([("getblockheader", [each.hex(), False]) for each in hashes])
        try:
            headers = [read_header(_unhex(text)) for text in raw]
        except BlockInvalid as invalid:
            raise nonsense(str(invalid)) from None
        if [header.hash for header in headers] != list(hashes):
            raise nonsense("a header that has another hash")
        return headers

    async def _raw(self, numbers: Sequence[int]) -> list[tuple[int, bytes, str]]:
        hashes = await self._hashes(numbers)
        raw = await self._all([("getblock", [each.hex(), 0]) for each in hashes])
        return list(zip(numbers, hashes, raw, strict=True))

    async def _of(
        self,
        source: Source,
        spenders: Spenders,
        number: int,
        header: Header,
        transactions: Sequence[Transaction],
    ) -> list[Event]:
        """The events of one block. An event's place counts every input and output of the block, whoever they pay."""
        scripts = frozenset(source.addresses)
        spent = await self._spent([each for one in transactions for each in one.inputs if spenders.may_spend(each)])
        found: list[Event] = []
        at = 0
        for index, one in enumerate(transactions):
            told = _told(one, scripts, spent)
            for ordinal, (place, kind, script, amount, payload) in enumerate(told):
                found.append(
                    Event(
                        block_number=number,
                        block_hash=header.hash,
                        tx_hash=one.txid,
                        tx_index=index,
                        log_index=at + place,
                        ordinal=ordinal,
                        kind=kind,
                        sequence=None,
                        subject=script,
                        account=None,
                        token=None,
                        amount=amount,
                        payload=payload,
                        at_seconds=header.at_seconds,
                    )
                )
            at += len(one.inputs) + len(one.outputs)
        return found

    async def _spent(self, inputs: Sequence[Input]) -> Mapping[tuple[bytes, int], Output]:
        """What these inputs spend. Their transactions may be of the same block, which is in the index as well."""
        found: dict[tuple[bytes, int], Output] = {}
        wanted = list(dict.fromkeys(each.txid for each in inputs))
        transactions: dict[bytes, Transaction] = {}
        for at in range(0, len(wanted), BATCH):
            part = wanted[at : at + BATCH]
            for txid, raw in zip(
                part, await self._all([("getrawtransaction", [t.hex(), False]) for t in part]), strict=True
            ):
                try:
                    transactions[txid] = read_transaction(_unhex(raw))
                except BlockInvalid as invalid:
                    raise nonsense(str(invalid)) from None
                if transactions[txid].txid != txid:
                    raise nonsense("a transaction that has another id")
        for each in inputs:
            outputs = transactions[each.txid].outputs
            if each.output >= len(outputs):
                raise nonsense("an input of an output that there is not")
            found[each.txid, each.output] = outputs[each.output]
        return found

    async def _all(self, calls: Sequence[Call]) -> list[str]:
        """The results of calls that must all have one."""
        found: list[str] = []
        for result in await self._rpc.batch(calls, str):
            if isinstance(result, ChainFault):
                raise result
            if result is None:
                raise nonsense("neither a result nor an error")
            found.append(result)
        return found


def _told(
    one: Transaction, scripts: frozenset[bytes], spent: Mapping[tuple[bytes, int], Output]
) -> Iterator[tuple[int, str, bytes, int, bytes]]:
    """What a transaction does with the scripts, inputs first: place, kind, script, amount, payload."""
    for place, given in enumerate(one.inputs):
        output = spent.get((given.txid, given.output))
        if output is not None and output.script in scripts:
            payload = utxo.spent(place, given.txid, given.output, output.value, output.script)
            yield place, utxo.SPENT, output.script, output.value, payload
    for index, output in enumerate(one.outputs):
        if output.script in scripts:
            payload = utxo.received(index, output.value, output.script)
            yield len(one.inputs) + index, utxo.RECEIVED, output.script, output.value, payload


def _proven(raw: str, block_hash: bytes) -> tuple[Header, tuple[Transaction, ...]]:
    try:
        header, transactions = read_block(_unhex(raw))
    except BlockInvalid as invalid:
        raise nonsense(f"block {block_hash.hex()}: {invalid}") from None
    if header.hash != block_hash:
        raise nonsense(f"block {block_hash.hex()} has another hash")
    return header, transactions


def _block(number: int, header: Header) -> Block:
    return Block(number, header.hash, header.parent_hash, header.at_seconds)


def _octets(text: str) -> bytes:
    found = _unhex(text)
    if len(found) != _HASH_BYTES:
        raise nonsense(f"a hash of {len(found)} bytes")
    return found


def _unhex(text: str) -> bytes:
    try:
        return unhexlify(text)
    except (HexInvalid, ValueError):
        raise nonsense("digits that are none") from None
