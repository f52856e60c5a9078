"""Nodes of a chain of the EVM with which something is wrong: each answers calls by way of a node that is right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from hashlib import sha256
from random import Random
from typing import Any, Final

#: How near its head a node may be between two histories.
_REORG_BLOCKS: Final = 3


class RpcError(Exception):
    """What a node answers instead of a result."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Lie(StrEnum):
    """What a liar says: that there are no events; not all of them; none behind a number, and a counter that agrees;
    other contents."""

    SILENT = "silent"
    OMITTING = "omitting"
    CUTTING = "cutting"
    INFLATING = "inflating"


class Node:
    """A node that is right: what it is asked, another one answers."""

    def __init__(self, ask: Callable[[str, Sequence[Any]], Awaitable[Any]]) -> None:
        self._ask = ask

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """Raises ``RpcError``."""
        return await self._ask(method, params)

    async def head(self) -> int:
        return int(await self.call("eth_blockNumber", []), 16)

    async def height_of(self, block_hash: str) -> int | None:
        block = await self.call("eth_getBlockByHash", [block_hash, False])
        return None if block is None else int(block["number"], 16)


class Lagging(Node):
    """A node whose head is ``limit``; it says of no range that it is above that."""

    def __init__(self, node: Node, limit: int) -> None:
        super().__init__(node.call)
        self._node, self._limit = node, limit

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        match method:
            case "eth_blockNumber":
                return hex(self._limit)
            case "eth_getBlockByNumber" if params[0] == "latest":
                return await self._node.call(method, [hex(self._limit), *params[1:]])
            case "eth_getBlockByNumber":
                block = await self._node.call(method, params)
                return None if block is None or int(block["number"], 16) > self._limit else block
            case "eth_getLogs" if "blockHash" in params[0]:
                await self._known(params[0]["blockHash"])
            case "eth_getLogs":
                first, last = int(params[0]["fromBlock"], 16), min(int(params[0]["toBlock"], 16), self._limit)
                if first > last:
                    return []
                return await self._node.call(method, [params[0] | {"toBlock": hex(last)}])
            case "eth_call" if len(params) > 1 and isinstance(params[1], dict):
                await self._known(params[1]["blockHash"])
        return await self._node.call(method, params)

    async def _known(self, block_hash: str) -> None:
        height = await self._node.height_of(block_hash)
        if height is None or height > self._limit:
            raise RpcError(-32000, "header not found")


class OfAnotherChain(Node):
    """A node of another chain, to which a balancer sent us by mistake."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.call)
        self._node = node

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        if method == "eth_chainId":
            return hex(int(await self._node.call(method, params), 16) + 1)
        if method == "eth_getBlockByNumber":
            block = await self._node.call(method, params)
            return block and block | {"hash": _other(block["hash"]), "parentHash": _other(block["parentHash"])}
        if method == "eth_getLogs" and "blockHash" not in params[0]:
            return []
        if method in ("eth_getLogs", "eth_call"):
            raise RpcError(-32000, "unknown block")
        return await self._node.call(method, params)


class BetweenHistories(Node):
    """A node that has another history from block ``first`` on: other blocks, and their events none or others."""

    def __init__(self, node: Node, first: int, random: Random) -> None:
        super().__init__(node.call)
        self._node, self._first, self._drops = node, first, random.random() < 0.5

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        match method:
            case "eth_getBlockByNumber":
                block = await self._node.call(method, params)
                return block and self._block(block)
            case "eth_getLogs" if "blockHash" not in params[0]:
                logs = await self._node.call(method, params)
                kept = [log for log in logs if not self._drops or int(log["blockNumber"], 16) < self._first]
                return [self._log(log) for log in kept]
            case "eth_getLogs":
                await self._here(params[0]["blockHash"])
            case "eth_call" if len(params) > 1 and isinstance(params[1], dict):
                await self._here(params[1]["blockHash"])
        return await self._node.call(method, params)

    def _block(self, block: dict[str, Any]) -> dict[str, Any]:
        number = int(block["number"], 16)
        if number >= self._first:
            block = block | {"hash": _other(block["hash"])}
        if number > self._first:
            block = block | {"parentHash": _other(block["parentHash"])}
        return block

    def _log(self, log: dict[str, Any]) -> dict[str, Any]:
        return log | {"blockHash": _other(log["blockHash"])} if int(log["blockNumber"], 16) >= self._first else log

    async def _here(self, block_hash: str) -> None:
        height = await self._node.height_of(block_hash)
        if height is None or height >= self._first:
            raise RpcError(-32000, "unknown block")


class Mangling(Node):
    """A node, or what stands before it, that mangles lists of logs."""

    def __init__(self, node: Node, fault: str, random: Random) -> None:
        super().__init__(node.call)
        self._node, self._fault, self._random = node, fault, random

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        found = await self._node.call(method, params)
        return self._mangled(found) if method == "eth_getLogs" and found else found

    def _mangled(self, logs: list[Any]) -> list[Any]:
        place = self._random.randrange(len(logs))
        match self._fault:
            case "empty":
                return []
            case "truncated":
                return logs[:place]
            case "doubled":
                return [*logs[: place + 1], *logs[place:]]
        return self._random.sample(logs, len(logs))


class Lying(Node):
    """A node that says the same untruth whenever it is asked; up to event ``honest_to`` it says the truth."""

    def __init__(self, node: Node, lie: Lie, honest_to: int) -> None:
        super().__init__(node.call)
        self._node, self._lie, self._honest_to = node, lie, honest_to

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        found = await self._node.call(method, params)
        if method == "eth_getLogs":
            return [said for log in found for said in self._said(log)]
        if method == "eth_call" and self._lie is Lie.CUTTING and len(found) == 66:
            return f"0x{min(int(found, 16), self._honest_to):064x}"
        return found

    def _said(self, log: dict[str, Any]) -> list[dict[str, Any]]:
        number = int(log["topics"][1], 16)
        if number <= self._honest_to:
            return [log]
        match self._lie:
            case Lie.OMITTING:
                return [log] if number % 2 else []
            case Lie.INFLATING:
                # The last word is an amount, a time or flags: of these the lowest bits may be any.
                word = int(log["data"][-64:] or "0", 16)
                return [log | {"data": f"{log['data'][:-64]}{word ^ 3:064x}"}]
        return []


async def twisted(node: Node, fault: str, random: Random, lag_blocks: int) -> Node:
    """The node with a fault that is not one of its connection."""
    match fault:
        case "lagging":
            return Lagging(node, max(0, await node.head() - lag_blocks))
        case "reorged":
            return BetweenHistories(node, max(1, await node.head() - random.randrange(_REORG_BLOCKS)), random)
        case "wrong_chain":
            return OfAnotherChain(node)
    return Mangling(node, fault, random)


def _other(digest: str) -> str:
    return "0x" + sha256(bytes.fromhex(digest[2:])).hexdigest()
