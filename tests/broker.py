"""A real NATS server for tests: killed and started again over the same store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import RawStreamMsg

from tools.local.process import free_port, tail, wait_until

PROGRAM = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")


def needed() -> str:
    """The server's program. Without it a test is skipped, and in CI it fails."""
    if PROGRAM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("nats-server is not installed: .ci/run installs it")
        pytest.skip("nats-server is not installed (Debian: apt-get install nats-server)")
    return PROGRAM


@dataclass
class Broker:
    """One server with JetStream on a port of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        log = self.folder / "nats.log"
        command = [needed(), "-js", "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.folder / "store")]
        with log.open("ab") as output:
            self.process = subprocess.Popen([*command, *self.options], stdout=output, stderr=output)
        assert wait_until(lambda: "Server is ready" in self._since_start(log), limit_seconds=20), tail(log)

    def _since_start(self, log: Path) -> str:
        text = log.read_text()
        return text[text.rfind("Starting nats-server") :]

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.kill()

    async def messages(self, stream: str) -> list[RawStreamMsg]:
        """Everything that a stream has, in its order."""
        client = Client()
        await client.connect(self.url, allow_reconnect=False)
        try:
            jetstream: Any = client.jetstream()
            state = (await jetstream.stream_info(stream)).state
            return [await jetstream.get_msg(stream, seq=n) for n in range(state.first_seq, state.last_seq + 1)]
        finally:
            await client.close()
