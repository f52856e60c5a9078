"""Hearing NOTIFY: one connection of its own that is opened again whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import asyncpg

from db.engine import CONNECT_TIMEOUT_SECONDS

RETRY_SECONDS = 1.0

#: What a connection can fail with. ``InternalClientError``: it ended between two messages of the protocol.
LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_log = logging.getLogger(__name__)


async def listen(dsn: str, hear: Mapping[str, Callable[[str], None]]) -> None:
    """Call each channel's function with what every notification says, and with nothing said after each connecting,
    until cancelled.

    What is notified while there is no connection is not heard: poll behind it.
    """
    while True:
        try:
            await _listen_once(dsn, hear)
        except LOST as error:
            _log.warning("cannot listen to %s, and so polls: %s", ", ".join(hear), error)
        await asyncio.sleep(RETRY_SECONDS)


async def _listen_once(dsn: str, hear: Mapping[str, Callable[[str], None]]) -> None:
    closed = asyncio.Event()
    connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_SECONDS)
    try:
        connection.add_termination_listener(lambda _: closed.set())
        for channel, wake in hear.items():
            await connection.add_listener(channel, _heard(wake))
            wake("")
        await closed.wait()
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)


def _heard(wake: Callable[[str], None]) -> Callable[..., None]:
    return lambda _connection, _pid, _channel, said: wake(said)
