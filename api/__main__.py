"""``python -m api``: serve until stopped."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import structlog

from api.main import create_app
from api.serving import listen, server_of
from kit.chains import ChainsUnusable
from kit.logs import configure_logging
from kit.settings import EXIT_CONFIGURATION, ApiSettings, load
from kit.temporal import forward_core_logs


def main() -> int:
    """Read the settings, bind, serve. Exits with 2 when a setting is missing, with 1 when the address is taken."""
    settings = load(ApiSettings)
    configure_logging("api", level=settings.log_level, fmt=settings.log_format)
    forward_core_logs()
    log = structlog.get_logger("api")
    try:
        listener = listen(settings.api_host, settings.api_port)
    except OSError as error:
        log.error("cannot listen", host=settings.api_host, port=settings.api_port, reason=str(error))
        return 1
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log.info("listening", url=url, docs=f"{url}/docs")
    try:
        app = create_app(settings)
    except ValueError as error:
        print(f"configuration: OUTWARD_ALLOW {error}", file=sys.stderr, flush=True)
        return EXIT_CONFIGURATION
    except ChainsUnusable as error:
        print(f"configuration: CHAINS_FILE {error}", file=sys.stderr, flush=True)
        return EXIT_CONFIGURATION
    server = server_of(app)
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
