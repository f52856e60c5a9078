"""The Temporal client of the short-lived commands."""

from __future__ import annotations

import asyncio

from temporalio.client import Client

from kit import temporal
from tools.local.process import StackError
from tools.settings import TemporalSettings

CONNECT_LIMIT_SECONDS = 30.0
PAUSE_SECONDS = 0.5


async def connect(settings: TemporalSettings) -> Client:
    """A client, waiting a while for a server that is just starting."""
    failure: Exception | None = None
    try:
        async with asyncio.timeout(CONNECT_LIMIT_SECONDS):
            while True:
                try:
                    return await temporal.connect(settings.temporal_address, settings.temporal_namespace)
                except RuntimeError as error:
                    failure = error
                    await asyncio.sleep(PAUSE_SECONDS)
    except TimeoutError:
        where = settings.temporal_address
        raise StackError(
            f"TEMPORAL_ADDRESS: no Temporal server answers at {where} ({failure or 'timeout'})"
        ) from failure
