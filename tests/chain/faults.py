"""A proxy before a node of a chain that goes wrong as nodes and their vendors do, by a seed, or lies.

It has a real socket and a thread of its own, so that a test may be at anything else meanwhile:

    with FaultProxy(chain.url, seed=7, rate=0.05) as proxy:
        reader = EvmReader("a", proxy.url)

``python -m tests.chain.faults URL --seed 7 --rate 0.05`` stands alone before any node.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

from tests.chain.twists import Lie, Lying, Node, RpcError, twisted

_START_SECONDS: Final = 20
_UPSTREAM_SECONDS: Final = 60


class Fault(StrEnum):
    """What can go wrong with one request."""

    HANG = "hang"
    LIMITED = "limited"
    CUT = "cut"
    LAGGING = "lagging"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    DOUBLED = "doubled"
    SHUFFLED = "shuffled"
    WRONG_CHAIN = "wrong_chain"
    REORGED = "reorged"


#: What happens to logs happens to requests for logs alone.
OF_LOGS: Final = (Fault.TRUNCATED, Fault.EMPTY, Fault.DOUBLED, Fault.SHUFFLED)


class FaultProxy:
    """Every request is answered wrongly with probability ``rate``, by one of ``faults``; which, the seed says, by the
    order in which requests arrive. ``rate`` and ``faults`` may be changed at any time.

    ``lie`` holds for all answers, and is always the same lie. ``injected`` counts what was done. A request that hangs
    is given up after ``hang_seconds``; ``lag_blocks`` is how far a lagging node is behind.
    """

    def __init__(
        self,
        upstream: str,
        *,
        seed: int = 0,
        rate: float = 0.0,
        faults: Sequence[Fault] = tuple(Fault),
        lie: Lie | None = None,
        lie_from: int = 3,
        hang_seconds: float = 30.0,
        lag_blocks: int = 4,
        port: int = 0,
    ) -> None:
        self.rate = rate
        self.faults = tuple(faults)
        self.lie = lie
        self.injected: Counter[Fault] = Counter()
        self.requests = 0
        self._upstream = upstream
        self._lie_from = lie_from
        self._hang_seconds = hang_seconds
        self._lag_blocks = lag_blocks
        self._random = random.Random(seed)
        self._port = port
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True, name="fault proxy")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_START_SECONDS), "the proxy did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_SECONDS)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/{rest:.*}", self._serve)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        timeout = aiohttp.ClientTimeout(total=_UPSTREAM_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 20) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", self._port)
            await site.start()
            self._port = runner.addresses[0][1]
            self._ready.set()
            try:
                await self._stop.wait()
            finally:
                await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        self.requests += 1
        fault = self._drawn(content)
        if fault is not None:
            self.injected[fault] += 1
        if fault is Fault.HANG:
            await asyncio.sleep(self._hang_seconds)
            return web.Response(status=504)
        if fault is Fault.LIMITED:
            return web.Response(status=429, text="Too Many Requests")
        if fault in (None, Fault.CUT) and self.lie is None:
            status, body = await self._forwarded(content)
        else:
            status, body = 200, await self._wrong(content, fault)
        if fault is Fault.CUT:
            return await _cut(request, body)
        return web.Response(status=status, body=body, content_type="application/json")

    def _drawn(self, content: bytes) -> Fault | None:
        hit, place = self._random.random() < self.rate, self._random.random()
        if not hit:
            return None
        logs = b"eth_getLogs" in content
        possible = [fault for fault in self.faults if logs or fault not in OF_LOGS]
        return possible[int(place * len(possible))] if possible else None

    async def _forwarded(self, content: bytes) -> tuple[int, bytes]:
        assert self._session is not None
        try:
            headers = {"Content-Type": "application/json"}
            async with self._session.post(self._upstream, data=content, headers=headers) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            return 502, b""

    async def _wrong(self, content: bytes, fault: Fault | None) -> bytes:
        """What a node would answer with which something is wrong."""
        sent = json.loads(content)
        node = Node(self._called)
        if self.lie is not None:
            node = Lying(node, self.lie, self._lie_from)
        if fault not in (None, Fault.CUT):
            node = await twisted(node, str(fault), self._random, self._lag_blocks)
        answers = [await _answered(node, call) for call in (sent if isinstance(sent, list) else [sent])]
        return json.dumps(answers if isinstance(sent, list) else answers[0]).encode()

    async def _called(self, method: str, params: Sequence[Any]) -> Any:
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        status, body = await self._forwarded(json.dumps(call).encode())
        if status != 200:
            raise RpcError(-32603, f"upstream answered {status}")
        answer = json.loads(body)
        if "error" in answer:
            raise RpcError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]


async def _answered(node: Node, call: dict[str, Any]) -> dict[str, Any]:
    answer = {"jsonrpc": "2.0", "id": call["id"]}
    try:
        return answer | {"result": await node.call(call["method"], call["params"])}
    except RpcError as error:
        return answer | {"error": {"code": error.code, "message": error.message}}


async def _cut(request: web.Request, body: bytes) -> web.StreamResponse:
    """Half of a body, and then no connection."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def main() -> None:
    """Stand before a node until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--lie", type=Lie, choices=list(Lie))
    parser.add_argument("--fault", type=Fault, choices=list(Fault), action="append")
    given = parser.parse_args()
    faults = given.fault or tuple(Fault)
    with FaultProxy(
        given.upstream, seed=given.seed, rate=given.rate, faults=faults, lie=given.lie, port=given.port
    ) as proxy:
        print(f"{proxy.url} -> {given.upstream}", flush=True)  # noqa: T201 - it is a program
        threading.Event().wait()


if __name__ == "__main__":
    main()
