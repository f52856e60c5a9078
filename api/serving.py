"""How the application is put behind a socket."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.streams import ABORT

GRACE_SECONDS = 15
KEEP_ALIVE_SECONDS = 30
BACKLOG = 2048
#: A connection whose far end acknowledges nothing for this long is given up.
UNACKNOWLEDGED_MS = 30_000


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    It names its protocol: asyncio switches Nagle's algorithm off only where it reads TCP, and with it on, an answer
    whose head and body leave separately waits 40 ms for the client's delayed acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted sockets have it from their listener
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class _Protocol(HttpToolsProtocol):
    """Lets an answer drop its connection: an orderly close would wait for a reader that reads no more."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {ABORT: self.transport.abort}


class _Server(uvicorn.Server):
    """Ends the event streams first when it stops; they would not end by themselves."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services = getattr(self._app.state, "services", None)
        if services is not None:
            services.streams.close()
        await super().shutdown(sockets)


def server_of(app: FastAPI) -> uvicorn.Server:
    """A server for the application; it logs through us and keeps its name to itself."""
    return _Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=_Protocol,
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ),
        app,
    )
