"""``python -m api``: serve until stopped."""

from __future__ import annotations

import os
import signal
import socket
import sys
from types import FrameType

import structlog
import uvicorn

from api.main import create_app
from kit.logs import configure_logging
from kit.settings import ApiSettings, load

GRACE_SECONDS = 15
BACKLOG = 2048


def main() -> int:
    """Read the settings, bind, serve. Exits with 2 when a setting is missing, with 1 when the address is taken."""
    settings = load(ApiSettings)
    configure_logging("api", level=settings.log_level, fmt=settings.log_format)
    log = structlog.get_logger("api")
    try:
        family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
        listener = socket.create_server((settings.api_host, settings.api_port), family=family, backlog=BACKLOG)
    except OSError as error:
        log.error("cannot listen", host=settings.api_host, port=settings.api_port, reason=str(error))
        return 1
    host, port = listener.getsockname()[:2]
    log.info("listening", url=f"http://{host}:{port}", docs=f"http://{host}:{port}/docs")
    config = uvicorn.Config(
        create_app(settings),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=30,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _stop(_: int, __: FrameType | None) -> None:
    """The server raises the signal that stopped it once more, after its clean-up: that is a success."""
    raise SystemExit(0)


def _run() -> int:
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        return main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


if __name__ == "__main__":
    status = _run()
    # A process that opened a Temporal client can crash in the interpreter's own exit, after all its work is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
