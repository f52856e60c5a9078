"""Readers of the durable feed that lose their connection often and remember nothing but where they were."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import httpx

PAGE = 200
PAUSE_SECONDS = 0.2
TIMEOUT_SECONDS = 5.0
#: A stream on which nothing happens says so every 15 seconds.
SILENCE_SECONDS = 20.0


class Reader:
    """Reads until cancelled. ``ids`` and ``positions`` are what it was told, in that order; ``after`` its cursor."""

    def __init__(self, url: str, api_key: str, chance: random.Random, *, timeout_seconds: float) -> None:
        self.after = 0
        self.positions: list[int] = []
        self.ids: list[str] = []
        self.failures = 0
        self.faults: list[str] = []
        self._chance = chance
        self._http = httpx.AsyncClient(
            base_url=f"{url}/api/v1", headers={"X-API-Key": api_key}, timeout=timeout_seconds, trust_env=False
        )

    async def run(self) -> None:
        """Read on, and come back after every failure."""
        while True:
            try:
                if await self.read():
                    continue
            except httpx.HTTPError:
                self.failures += 1
            await asyncio.sleep(self._chance.uniform(0, 2 * PAUSE_SECONDS))

    async def read(self) -> bool:
        """Read some; whether there may be more at once."""
        raise NotImplementedError

    async def reach(self, position: int, limit_seconds: float) -> bool:
        """Whether it got as far as ``position`` while it runs."""
        deadline = time.monotonic() + limit_seconds
        while self.after < position and time.monotonic() < deadline:  # noqa: ASYNC110 - the feed lies outside
            await asyncio.sleep(PAUSE_SECONDS)
        return self.after >= position

    async def close(self) -> None:
        """End its connections."""
        await self._http.aclose()

    def _take(self, item: dict[str, Any]) -> None:
        self.positions.append(item["position"])
        self.ids.append(item["id"])

    def _failed(self, answer: httpx.Response) -> bool:
        if answer.is_success:
            return False
        self.failures += 1
        if answer.status_code != 503:
            self.faults.append(f"{answer.request.url.path}: {answer.status_code}")
        return True


class CursorReader(Reader):
    """Pages through ``GET /events``."""

    def __init__(self, url: str, api_key: str, chance: random.Random) -> None:
        super().__init__(url, api_key, chance, timeout_seconds=TIMEOUT_SECONDS)

    async def read(self) -> bool:
        """One page."""
        answer = await self._http.get("/events", params={"after": self.after, "limit": PAGE})
        if self._failed(answer):
            return False
        told = answer.json()
        for item in told["items"]:
            self._take(item)
        self.after = told["next_after"]
        return len(told["items"]) == PAGE


class StreamReader(Reader):
    """Listens to ``GET /events/stream`` and comes back with the last id."""

    def __init__(self, url: str, api_key: str, chance: random.Random) -> None:
        super().__init__(url, api_key, chance, timeout_seconds=SILENCE_SECONDS)

    async def read(self) -> bool:
        """One stream, until it ends. A block counts once it is whole."""
        headers = {"Last-Event-ID": str(self.after)}
        async with self._http.stream("GET", "/events/stream", headers=headers) as answer:
            if self._failed(answer):
                return False
            block: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if line:
                    block[name] = value
                    continue
                if "data" in block:
                    self._take(json.loads(block["data"]))
                if "id" in block:
                    self.after = int(block["id"])
                block = {}
        return False
