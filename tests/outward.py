"""Requests through the door outwards, to receivers on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from activities.ports import Reached
from activities.vendors.outward import OutwardClient
from domain.webhooks.addresses import Reach
from tests.receivers import Line, Receiver, Script, receiver

HERE = Reach.parse("127.0.0.0/8")


async def post(
    client: OutwardClient,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b'{"a": 1}',
    deadline_seconds: float = 10,
    read_bytes: int = 1_000,
) -> Reached:
    return await client.post(url, headers or {}, body, deadline_seconds=deadline_seconds, read_bytes=read_bytes)


async def once(script: Script, **how: Any) -> tuple[Reached, Receiver]:
    """One request to a receiver of its own."""
    async with receiver(script) as there:
        client = OutwardClient(allow=HERE)
        try:
            return await post(client, there.url, **how), there
        finally:
            await client.close()


def says(content: bytes) -> Script:
    async def script(line: Line) -> None:
        await line.request()
        await line.say(content)

    return script


async def silent(line: Line) -> None:
    await line.request()
    await asyncio.sleep(3_600)
