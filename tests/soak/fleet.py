"""The real processes of a stack, each of which can be killed, and the wires between them, each of which can be cut."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import psycopg

from tests.cable import Wire
from tools.local.home import PREFERRED_PORTS, Home, Ports
from tools.local.process import StackError, spawn, stop, tail
from tools.local.stack import Stack
from tools.local.supervisor import Service, Task

ROLES = ("worker", "api", "postgres", "temporal")
WIRES = ("client-api", "api-postgres", "api-temporal", "worker-postgres", "worker-temporal")
#: A worker leaves with this where a server that it needs is away at its start; whoever runs it starts it again.
EXIT_UNAVAILABLE = 3
POLL_SECONDS = 0.05
RESTART_SECONDS = 0.3
READY_LIMIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Ending:
    """A process that ended though nobody asked it to."""

    role: str
    status: int
    at_seconds: float
    log: str

    @property
    def excused(self) -> bool:
        """Whether it said itself that it could not start without what was down just then."""
        if self.role == "worker":
            return self.status == EXIT_UNAVAILABLE
        # The backends of a killed postmaster outlive it by a moment, and keep the next one out.
        return self.role == "postgres" and "pre-existing shared memory block" in self.log


@dataclass(slots=True)
class Ward:
    """One process, started again whenever it ends."""

    service: Service
    began: float
    kills: int = 0
    starts: int = 0
    endings: list[Ending] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None
    _downtime_seconds: float | None = None
    _stopping: bool = False

    @property
    def up(self) -> bool:
        """Whether it runs right now."""
        return self._process is not None and self._process.poll() is None

    def kill(self, downtime_seconds: float) -> bool:
        """SIGKILL; it stays down for a while. False when there was nothing to kill."""
        if self._process is None or not self.up:
            return False
        self._downtime_seconds = downtime_seconds
        self._process.kill()
        self.kills += 1
        return True

    async def run(self) -> None:
        """Keep it running until ``stop``."""
        service = self.service
        while not self._stopping:
            await asyncio.to_thread(service.prepare)
            # In this thread, which lives as long as the child: its end is what the child's leash feels.
            self._process = process = spawn(
                service.command(),
                log=service.log,
                env=service.env or None,
                cwd=service.cwd,
                death_signal=service.stop_signal,
                user_id=service.user_id,
            )
            self.starts += 1
            while process.poll() is None:  # noqa: ASYNC110 - a process has no event to wait for
                await asyncio.sleep(POLL_SECONDS)
            pause, self._downtime_seconds = self._downtime_seconds, None
            if pause is None and not self._stopping:
                at = time.monotonic() - self.began
                self.endings.append(Ending(service.name, process.returncode, at, tail(service.log, 12)))
            await asyncio.sleep(RESTART_SECONDS if pause is None else pause)

    async def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        self._stopping = True
        if self._process is not None:
            limit = self.service.stop_limit_seconds
            await asyncio.to_thread(stop, self._process, first=self.service.stop_signal, limit_seconds=limit)


class Fleet:
    """A stack below ``folder``, on ports of its own. Entering it starts everything, leaving it ends everything."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.home = Home(folder)
        self.wards: dict[str, Ward] = {}
        self.wires: dict[str, Wire] = {}
        self.began = time.monotonic()
        self._say = say
        self._ports = Ports()
        for role in PREFERRED_PORTS:
            self._ports.take(role, [])
        theirs = ("DATABASE_", "TEMPORAL_", "HOLDFAST_", "API_", "WORKER_", "LOG_", "NATS_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        self.stack = Stack(self.home, self._ports, environment=environment)
        self._exits = AsyncExitStack()
        self._running: list[asyncio.Task[None]] = []

    @property
    def database_url(self) -> str:
        """The database itself, past every wire, as its superuser."""
        return self.stack.database_url

    @property
    def api_url(self) -> str:
        """The API, through the clients' wire."""
        return f"http://127.0.0.1:{self.wires['client-api'].port}"

    @property
    def api_key(self) -> str:
        """The first tenant's service key."""
        return self.home.api_key_file.read_text().strip()

    async def __aenter__(self) -> Self:
        try:
            await self._lay_wires()
            for step in self.stack.steps():
                if isinstance(step, Task):
                    await self._run_task(step)
                else:
                    await self._start(self._wired(step))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for ward in reversed(self.wards.values()):
            await asyncio.shield(ward.stop())
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._exits.aclose()
        self._ports.release()

    def mend_all(self) -> None:
        """Every wire whole again."""
        for wire in self.wires.values():
            wire.mend()

    async def _lay_wires(self) -> None:
        for name in WIRES:
            port = self._ports.by_role[name.partition("-")[2]]
            self.wires[name] = await self._exits.enter_async_context(Wire("127.0.0.1", port))

    def _wired(self, service: Service) -> Service:
        """The service with the servers that it uses at the other end of its wires."""
        if service.name not in ("worker", "api"):
            return service
        database = psycopg.conninfo.conninfo_to_dict(self.database_url)
        postgres, temporal = (self.wires[f"{service.name}-{server}"].port for server in ("postgres", "temporal"))
        urls = {
            "DATABASE_URL": f"postgresql://{database['user']}@127.0.0.1:{postgres}/{database['dbname']}",
            "TEMPORAL_ADDRESS": f"127.0.0.1:{temporal}",
        }
        return replace(service, env={**service.env, **urls})

    async def _start(self, service: Service) -> None:
        ward = self.wards[service.name] = Ward(service, self.began)
        self._running.append(asyncio.create_task(ward.run(), name=service.name))
        try:
            async with asyncio.timeout(READY_LIMIT_SECONDS):
                while not await asyncio.to_thread(service.ready):
                    if ward.endings:
                        raise StackError(f"{service.name} did not start:\n{ward.endings[0].log}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise StackError(f"{service.name} was not ready in time:\n{tail(service.log)}") from None
        await asyncio.to_thread(service.after_ready)
        self._say(f"{service.name} is ready")

    async def _run_task(self, task: Task) -> None:
        process = spawn(task.command, log=task.log, env=task.env, cwd=task.cwd, fresh_log=True)
        try:
            async with asyncio.timeout(task.limit_seconds):
                while process.poll() is None:  # noqa: ASYNC110 - a process has no event to wait for
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            await asyncio.to_thread(stop, process, first=signal.SIGTERM, limit_seconds=10)
        if process.returncode != 0:
            raise StackError(f"{task.name} ended with {process.returncode}:\n{tail(task.log)}")
