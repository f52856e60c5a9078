"""Waiting for a condition, with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], Awaitable[bool]], *, limit_seconds: float = 20.0) -> None:
    """Return once ``condition`` holds; fail when it does not within the limit."""
    try:
        async with asyncio.timeout(limit_seconds):
            while not await condition():  # noqa: ASYNC110 - the condition lies outside this process
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{condition.__qualname__} did not become true in {limit_seconds} s") from None
