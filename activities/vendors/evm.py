"""One node of a chain of the EVM, through the standard JSON-RPC (ethereum/execution-apis)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from activities.chain.ports import ChainFault, FaultKind
from activities.vendors.evmlogs import Log, LogDecoder, nonsense, octets, quantity
from activities.vendors.rpc import Rpc
from domain.chain import MAX_SEQUENCE, Block, Books, Event, Head, Source
from kit.evm import WORD, interface

#: Headers in one request. Vendors bear between ten and a thousand calls in one; who bears fewer is learned.
BATCH: Final = 100


class Header(msgspec.Struct, rename="camel"):
    """As ``eth_getBlockByNumber`` answers it, as far as it is read."""

    number: str
    hash: str
    parent_hash: str
    timestamp: str

    def block(self) -> Block:
        """Raises ``ChainFault``."""
        return Block(
            quantity(self.number), octets(self.hash, WORD), octets(self.parent_hash, WORD), quantity(self.timestamp)
        )


class EvmReader:
    """See ``activities.chain.ports.ChainReader``. Sources are escrow contracts, by their address of 20 bytes.

    Nodes differ in what they say of a range that ends above their head: some refuse, which is ``BEHIND``, and some
    answer as if nothing were there. Whoever asks has to compare the blocks.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        timeout_seconds: float = 10.0,
        max_body_bytes: int = 64_000_000,
        batch: int = BATCH,
    ) -> None:
        self._name = name
        self._rpc = Rpc(url, timeout_seconds=timeout_seconds, max_body_bytes=max_body_bytes)
        self._batch = batch
        self._decoder = LogDecoder()

    @property
    def name(self) -> str:
        """What the configuration calls the provider."""
        return self._name

    async def network(self) -> str:
        """The chain's id (EIP-155) as CAIP-2 writes it."""
        async with self._rpc.deadline():
            said = await self._rpc.call("eth_chainId", [], str)
        if said is None:
            raise nonsense("no chain id")
        return f"eip155:{quantity(said)}"

    async def head(self) -> Head:
        """The last block, and the last that the chain calls final; a node that knows no finality is no fault."""
        asked = [("eth_getBlockByNumber", [tag, False]) for tag in ("latest", "finalized")]
        async with self._rpc.deadline():
            latest, finalized = await self._batched(asked)
        if isinstance(latest, ChainFault):
            raise latest
        if latest is None:
            raise ChainFault(FaultKind.BEHIND, "it has no block at all")
        block = latest.block()
        if finalized is None or isinstance(finalized, ChainFault):
            if finalized is not None and finalized.kind in (FaultKind.UNAVAILABLE, FaultKind.RATE_LIMITED):
                raise finalized
            return Head(block)
        final = finalized.block().number
        if final > block.number:
            raise nonsense(f"block {final} is final, and block {block.number} the last")
        return Head(block, final)

    async def blocks(self, numbers: Sequence[int]) -> Sequence[Block]:
        """The headers at these heights, a batch of them a request."""
        found: list[Block] = []
        async with self._rpc.deadline():
            while len(found) < len(numbers):
                wanted = numbers[len(found) : len(found) + self._batch]
                calls = [("eth_getBlockByNumber", [hex(number), False]) for number in wanted]
                for number, header in zip(wanted, await self._batched(calls), strict=True):
                    found.append(_header(number, header))
        return found

    async def events(self, source: Source, first: int, last: int) -> Sequence[Event]:
        """Every event of the contract in these blocks, by one ``eth_getLogs``."""
        (address,) = source.addresses
        try:
            logs = await self._logs({"fromBlock": hex(first), "toBlock": hex(last), "address": _hex(address)})
        except ChainFault as fault:
            # Some vendors name a limit and refuse less than that, too: what was asked for is what it must be below.
            if fault.limit_blocks is not None and fault.limit_blocks > last - first:
                fault.limit_blocks = None
            raise
        return self._decoder.events(logs, address, first, last)

    async def events_of(self, source: Source, block: Block) -> Sequence[Event]:
        """Every event of the contract in exactly this block (EIP-234)."""
        (address,) = source.addresses
        logs = await self._logs({"blockHash": _hex(block.hash), "address": _hex(address)})
        return self._decoder.events(logs, address, block.number, block.number, block)

    async def counter(self, source: Source, block: Block) -> int | None:
        """``sequence()`` as of exactly this block (EIP-1898).

        None before there was a contract, and where the node has dropped the state. Some answer as if there had never
        been a contract then (erigontech/erigon#3152, #18912), so that is never a zero.
        """
        said = await self._call(source, block, interface().selectors["sequence()"])
        if said is None:
            return None
        counter = int.from_bytes(octets(said, WORD))
        if counter > MAX_SEQUENCE:
            raise nonsense("a number of events that there cannot be")
        return counter

    async def books(self, source: Source, token: bytes, block: Block) -> Books | None:
        """``books(token)`` as of exactly this block, as ``counter`` has the number."""
        said = await self._call(source, block, interface().selectors["books(address)"] + token.rjust(WORD, b"\0").hex())
        if said is None:
            return None
        words = octets(said, 4 * WORD)
        sequence, *money = (int.from_bytes(words[at : at + WORD]) for at in range(0, 4 * WORD, WORD))
        if sequence > MAX_SEQUENCE:
            raise nonsense("a number of events that there cannot be")
        return Books(sequence, *money)

    async def _call(self, source: Source, block: Block, data: str) -> str | None:
        """What the contract answers as of exactly this block; None where there is no state or no contract."""
        (address,) = source.addresses
        try:
            async with self._rpc.deadline():
                said = await self._rpc.call(
                    "eth_call", [{"to": _hex(address), "data": data}, {"blockHash": _hex(block.hash)}], str
                )
        except ChainFault as fault:
            if fault.kind is FaultKind.NO_STATE:
                return None
            raise
        return None if said == "0x" else said or ""

    async def close(self) -> None:
        """Let go of connections; a later call opens others."""
        await self._rpc.close()

    async def _logs(self, wanted: dict[str, Any]) -> list[Log]:
        async with self._rpc.deadline():
            found: list[Log] | None = await self._rpc.call("eth_getLogs", [wanted], list[Log])
        if found is None:
            raise nonsense("neither logs nor an error")
        return found

    async def _batched(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> Sequence[Header | ChainFault | None]:
        """One request; a node that does not take so many calls in one is asked for fewer from then on. Some take no two
        together."""
        if self._batch > 1 or len(calls) == 1:
            try:
                return await self._rpc.batch(calls, Header)
            except ChainFault as fault:
                if len(calls) == 1 or fault.kind not in (FaultKind.TOO_WIDE, FaultKind.TOO_MUCH, FaultKind.REFUSED):
                    raise
                self._batch = max(1, len(calls) // 4)
                if len(calls) > 2:
                    raise ChainFault(FaultKind.TOO_MUCH, fault.message) from fault
        return [(await self._rpc.batch([call], Header))[0] for call in calls]


def _header(number: int, header: Header | ChainFault | None) -> Block:
    if header is None:
        raise ChainFault(FaultKind.BEHIND, f"it has no block {number}")
    if isinstance(header, ChainFault):
        raise header
    block = header.block()
    if block.number != number:
        raise nonsense(f"block {block.number} where block {number} was asked for")
    return block


def _hex(content: bytes) -> str:
    return f"0x{content.hex()}"
