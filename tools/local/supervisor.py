"""Keeps an ordered list of services running: starts them, restarts what dies, ends them in the reverse order."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.local.process import ProcessId, StackError, spawn, stop, tail

POLL_SECONDS = 0.1
LIVED_SECONDS = 5.0
BACKOFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 4.0)
QUICK_DEATHS_MAX = 8


class StopRequested(Exception):
    """Somebody asked the supervisor to end while it was waiting."""


@dataclass(frozen=True, slots=True)
class Service:
    """A process that stays. `prepare` runs before each start, `after_ready` once when it is first ready."""

    name: str
    command: Callable[[], Sequence[str]]
    ready: Callable[[], bool]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    user_id: int | None = None
    prepare: Callable[[], None] = lambda: None
    after_ready: Callable[[], None] = lambda: None
    stop_signal: signal.Signals = signal.SIGTERM
    start_limit_seconds: float = 60.0
    stop_limit_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Task:
    """A command that runs once, between services, and must succeed."""

    name: str
    command: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    limit_seconds: float = 120.0


@dataclass(slots=True)
class _Child:
    service: Service
    process: subprocess.Popen[bytes]
    started_at: float
    quick_deaths: int = 0
    restart_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Runs the steps in order, then watches. `say` gets one line per thing that a person would want to know."""

    steps: Sequence[Service | Task]
    say: Callable[[str], None]
    on_change: Callable[[Mapping[str, int]], None] = lambda _: None
    quick_deaths_max: int = QUICK_DEATHS_MAX
    _children: list[_Child] = field(default_factory=list)
    _stopping: bool = False

    def request_stop(self) -> None:
        """Safe to call from a signal handler."""
        self._stopping = True

    def pids(self) -> dict[str, int]:
        """The process of each role that was started."""
        return {"supervisor": os.getpid()} | {child.service.name: child.process.pid for child in self._children}

    def identities(self) -> dict[str, ProcessId]:
        """The living processes by role."""
        found = {role: ProcessId.of(pid) for role, pid in self.pids().items()}
        return {role: identity for role, identity in found.items() if identity is not None}

    def start(self) -> None:
        """Bring every step up; on failure nothing is left running and StackError says why."""
        try:
            for step in self.steps:
                if isinstance(step, Task):
                    self._run_task(step)
                else:
                    self._start_service(step)
        except BaseException:
            self.stop()
            raise

    def watch(self) -> None:
        """Restart what dies until a stop is requested; then end everything. Raises StackError when it gives up."""
        try:
            while not self._stopping:
                for child in self._children:
                    self._look_after(child)
                time.sleep(POLL_SECONDS)
        finally:
            self.stop()

    def stop(self) -> None:
        """End the services, last started first."""
        for child in reversed(self._children):
            service = child.service
            asked = time.monotonic()
            willing = stop(
                child.process,
                first=service.stop_signal,
                limit_seconds=service.stop_limit_seconds,
            )
            manner = f"ended in {time.monotonic() - asked:.1f} s" if willing else "had to be killed"
            self.say(f"{service.name}: {manner}")
        self._children.clear()

    def _run_task(self, task: Task) -> None:
        began = time.monotonic()
        process = spawn(task.command, log=task.log, env=task.env, cwd=task.cwd, fresh_log=True)
        try:
            self._wait(lambda: process.poll() is not None, task.limit_seconds)
        except StopRequested:
            stop(process, first=signal.SIGTERM, limit_seconds=10)
            raise
        if process.poll() is None:
            stop(process, first=signal.SIGTERM, limit_seconds=10)
            raise StackError(
                f"{task.name} took longer than {task.limit_seconds:g} s; the end of {task.log}:\n{tail(task.log)}"
            )
        if process.returncode != 0:
            raise StackError(f"{task.name} failed ({_manner(process)}); the end of {task.log}:\n{tail(task.log)}")
        self.say(f"{task.name}: done ({time.monotonic() - began:.1f} s)")

    def _start_service(self, service: Service) -> None:
        began = time.monotonic()
        child = _Child(service, self._spawn(service), began)
        self._children.append(child)
        self.on_change(self.pids())
        self._wait(
            lambda: child.process.poll() is not None or service.ready(),
            service.start_limit_seconds,
        )
        if child.process.poll() is not None:
            raise StackError(f"{service.name} {_manner(child.process)}; the end of {service.log}:\n{tail(service.log)}")
        if not service.ready():
            limit = f"{service.start_limit_seconds:g} s"
            raise StackError(
                f"{service.name} was not ready within {limit}; the end of {service.log}:\n{tail(service.log)}"
            )
        service.after_ready()
        self.say(f"{service.name}: ready ({time.monotonic() - began:.1f} s)")

    def _look_after(self, child: _Child) -> None:
        if child.process.poll() is None:
            return
        now = time.monotonic()
        service = child.service
        if child.restart_at is None:
            child.quick_deaths = 0 if now - child.started_at >= LIVED_SECONDS else child.quick_deaths + 1
            died = f"{service.name} (pid {child.process.pid}) {_manner(child.process)}"
            if child.quick_deaths >= self.quick_deaths_max:
                raise StackError(
                    f"{died}, {child.quick_deaths} times within {LIVED_SECONDS:g} s of its start; giving up. "
                    f"The end of {service.log}:\n{tail(service.log)}"
                )
            pause = BACKOFF_SECONDS[min(child.quick_deaths, len(BACKOFF_SECONDS) - 1)]
            child.restart_at = now + pause
            self.say(f"{died}; restarting it in {pause:g} s")
        if now >= child.restart_at:
            child.process = self._spawn(service)
            child.started_at, child.restart_at = now, None
            self.on_change(self.pids())
            self.say(f"{service.name}: restarted (pid {child.process.pid})")

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        service.prepare()
        return spawn(
            service.command(),
            log=service.log,
            env=service.env or None,
            cwd=service.cwd,
            death_signal=service.stop_signal,
            user_id=service.user_id,
        )

    def _wait(self, condition: Callable[[], bool], limit_seconds: float) -> None:
        deadline = time.monotonic() + limit_seconds
        while not condition() and time.monotonic() < deadline:
            if self._stopping:
                raise StopRequested
            time.sleep(POLL_SECONDS / 2)


def _manner(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"
