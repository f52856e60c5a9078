"""The whole stack as an ordered list of steps, and the file that says how to reach it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kit.build import API_SOURCES, ROOT, WORKER_SOURCES, build_id, digest
from tools.local import postgres, temporal
from tools.local.home import Home, Ports, StackFile
from tools.local.http import http_ok
from tools.local.supervisor import Service, Task

LOOPBACK = "127.0.0.1"
DEFAULT_TENANT = "local"


def code_digest() -> str:
    """A hash over everything that a running stack has loaded; `up` compares it."""
    return digest(ROOT, (*WORKER_SOURCES, *API_SOURCES, "tools", "requirements/dev.txt"))


@dataclass(slots=True)
class Stack:
    """One stack below `home`. DATABASE_URL and TEMPORAL_ADDRESS in `environment` replace the embedded servers."""

    home: Home
    ports: Ports
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    build: str = field(default_factory=build_id)
    code: str = field(default_factory=code_digest)

    @property
    def embedded_postgres(self) -> postgres.EmbeddedPostgres | None:
        """The database of our own, or None when DATABASE_URL is set."""
        if self.environment.get("DATABASE_URL"):
            return None
        return postgres.EmbeddedPostgres(
            self.home.postgres_data,
            port=self.ports.by_role["postgres"],
            log=self.home.log("postgres"),
        )

    @property
    def embedded_temporal(self) -> temporal.TemporalDevServer | None:
        """The Temporal server of our own, or None when TEMPORAL_ADDRESS is set."""
        if self.environment.get("TEMPORAL_ADDRESS"):
            return None
        ports = self.ports.by_role
        return temporal.TemporalDevServer(
            self.home.temporal_database,
            self.home.log("temporal"),
            port=ports["temporal"],
            ui_port=ports["temporal_ui"],
            metrics_port=ports["temporal_metrics"],
            namespace=self.environment.get("TEMPORAL_NAMESPACE") or "default",
        )

    @property
    def database_url(self) -> str:
        """The database that everything uses."""
        embedded = self.embedded_postgres
        return embedded.url if embedded else self.environment["DATABASE_URL"]

    @property
    def temporal_address(self) -> str:
        """The Temporal server that everything uses."""
        embedded = self.embedded_temporal
        return embedded.address if embedded else self.environment["TEMPORAL_ADDRESS"]

    @property
    def temporal_ui_url(self) -> str | None:
        """Its Web UI, where that is known."""
        embedded = self.embedded_temporal
        return embedded.ui_url if embedded else self.environment.get("TEMPORAL_UI_URL") or None

    @property
    def api_url(self) -> str:
        """Where the API will be."""
        return f"http://{LOOPBACK}:{self.ports.by_role['api']}"

    def child_environment(self) -> dict[str, str]:
        """The environment of every process of ours."""
        return {
            **self.environment,
            "DATABASE_URL": self.database_url,
            "TEMPORAL_ADDRESS": self.temporal_address,
            "HOLDFAST_BUILD_ID": self.build,
            "HOLDFAST_HOME": str(self.home.root),
            "API_HOST": LOOPBACK,
            "API_PORT": str(self.ports.by_role["api"]),
            "PUBLIC_URL": self.environment.get("PUBLIC_URL") or self.api_url,
            "WORKER_HEALTH_PORT": str(self.ports.by_role["worker_health"]),
            "SEAL_KEY_FILE": self.environment.get("SEAL_KEY_FILE") or str(self.home.seal_key_file),
            "CHECKPOINT_DIR": self.environment.get("CHECKPOINT_DIR") or str(self.home.checkpoints),
            "PRICES_MANUAL_FILE": self.environment.get("PRICES_MANUAL_FILE") or str(self.home.prices_file),
            "CHAINS_FILE": self.environment.get("CHAINS_FILE") or str(self.home.chains_file),
            "PYTHONUNBUFFERED": "1",
            # Each run of a workflow loads its file again, in a sandbox of its own: without bytecode it is compiled
            # each time.
            "PYTHONDONTWRITEBYTECODE": "",
        }

    def steps(self) -> list[Service | Task]:
        """In order of start; everything a step needs comes before it."""
        steps: list[Service | Task] = []
        if self.embedded_postgres:
            steps.append(self._postgres(self.embedded_postgres))
        steps.append(self._task("migrate"))
        if self.embedded_temporal:
            steps.append(self._temporal(self.embedded_temporal))
        steps.append(self._task("register"))
        steps.append(self._task("seal-key", "--file", self.child_environment()["SEAL_KEY_FILE"]))
        steps.append(self._task("prices", "start"))
        if not self.environment.get("CHAINS_FILE"):
            steps.append(self._task("chains", "start", "--local-port", str(self.ports.by_role["chain"])))
        steps.append(self._python("worker", ["worker.py"], "worker_health", "/healthz"))
        # The embedded server has no workers but ours: every other build's are gone.
        alone = ["--no-other-workers"] if self.embedded_temporal else []
        steps.append(self._task("deploy", "--build-id", self.build, *alone))
        # A schedule refreshes them; this is for who asks within its first seconds.
        steps.append(self._task("prices", "refresh", "--if-possible"))
        steps.append(
            self._task(
                "first-key",
                "--tenant",
                DEFAULT_TENANT,
                "--file",
                str(self.home.api_key_file),
            )
        )
        steps.append(self._python("api", ["-m", "api"], "api", "/readyz"))
        return steps

    def file(self, pids: Mapping[str, int]) -> StackFile:
        """How to reach this stack."""
        return StackFile(
            api_url=self.api_url,
            temporal_address=self.temporal_address,
            temporal_ui_url=self.temporal_ui_url,
            database_url=self.database_url,
            api_key_file=str(self.home.api_key_file),
            pids=dict(pids),
            build_id=self.build,
            code=self.code,
        )

    def _postgres(self, server: postgres.EmbeddedPostgres) -> Service:
        return Service(
            "postgres",
            command=server.command,
            ready=server.ready,
            log=server.log,
            user_id=postgres.run_as().user_id,
            prepare=server.prepare,
            after_ready=server.create_database,
            stop_signal=signal.SIGINT,
            start_limit_seconds=postgres.START_LIMIT_SECONDS,
            stop_limit_seconds=postgres.STOP_LIMIT_SECONDS,
        )

    def _temporal(self, server: temporal.TemporalDevServer) -> Service:
        return Service(
            "temporal",
            command=server.command,
            ready=server.ready,
            log=server.log,
            after_ready=server.configure,
            start_limit_seconds=temporal.START_LIMIT_SECONDS,
            stop_limit_seconds=temporal.STOP_LIMIT_SECONDS,
        )

    def _python(self, name: str, arguments: list[str], port: str, path: str) -> Service:
        url = f"http://{LOOPBACK}:{self.ports.by_role[port]}{path}"
        return Service(
            name,
            command=lambda: [sys.executable, *arguments],
            ready=lambda: http_ok(url),
            log=self.home.log(name),
            env=self.child_environment(),
            cwd=ROOT,
            stop_limit_seconds=30.0,
        )

    def _task(self, name: str, *arguments: str) -> Task:
        return Task(
            name,
            [sys.executable, "-m", "tools", name, *arguments],
            log=self.home.log(name),
            env=self.child_environment(),
            cwd=ROOT,
            limit_seconds=600.0 if name == "deploy" else 120.0,
        )


def summary(home: Home, stack: StackFile) -> str:
    """What a person at the terminal wants to know."""
    lines = [
        "Holdfast is up.",
        f"  API          {stack.api_url}",
        f"  API docs     {stack.api_url}/docs",
        f"  Temporal UI  {stack.temporal_ui_url or '(unknown: set TEMPORAL_UI_URL)'}",
        f"  API key      in {_short(Path(stack.api_key_file))} (send it as X-API-Key)",
        f"  Logs         in {_short(home.log('x').parent)}",
    ]
    return "\n".join(lines)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
