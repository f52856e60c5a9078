"""A reader of the durable feed that loses its connection often and remembers nothing but its cursor."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx

PAGE = 200
PAUSE_SECONDS = 0.2
TIMEOUT_SECONDS = 5.0


class CursorReader:
    """Pages through ``GET /events``. ``positions`` and ``ids`` are what it was told, in that order."""

    def __init__(self, url: str, api_key: str, chance: random.Random) -> None:
        self.after = 0
        self.positions: list[int] = []
        self.ids: list[str] = []
        self.failures = 0
        self.faults: list[str] = []
        self._chance = chance
        self._http = httpx.AsyncClient(
            base_url=f"{url}/api/v1", headers={"X-API-Key": api_key}, timeout=TIMEOUT_SECONDS, trust_env=False
        )

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            if not await self.page():
                await asyncio.sleep(self._chance.uniform(0, 2 * PAUSE_SECONDS))

    async def page(self) -> bool:
        """Read one page; whether there may be more at once."""
        try:
            answer = await self._http.get("/events", params={"after": self.after, "limit": PAGE})
        except httpx.HTTPError:
            self.failures += 1
            return False
        if not answer.is_success:
            self.failures += 1
            if answer.status_code != 503:
                self.faults.append(f"GET /events: {answer.status_code} {answer.text[:300]}")
            return False
        told: dict[str, Any] = answer.json()
        self.positions += [item["position"] for item in told["items"]]
        self.ids += [item["id"] for item in told["items"]]
        self.after = told["next_after"]
        return len(told["items"]) == PAGE

    async def catch_up(self) -> None:
        """Read to the end, once nothing is broken any more."""
        while await self.page():
            pass

    async def close(self) -> None:
        """End its connections."""
        await self._http.aclose()
