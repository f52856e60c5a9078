"""The API behind a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from api.main import create_app
from api.serving import listen, server_of
from kit.settings import ApiSettings


@asynccontextmanager
async def served(settings: ApiSettings) -> AsyncIterator[tuple[uvicorn.Server, str]]:
    """The application behind a socket, as the process serves it."""
    listener = listen("127.0.0.1", 0)
    server = server_of(create_app(settings))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(20):
            while not server.started:  # noqa: ASYNC110 - the server offers nothing to wait for
                await asyncio.sleep(0.01)
        yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
