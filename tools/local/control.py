"""Bringing a stack up, in the foreground or behind the terminal, and taking it down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kit.build import ROOT
from tools.local.home import Home, StackFile
from tools.local.http import http_ok
from tools.local.process import ProcessId, StackError, wait_until
from tools.local.stack import Stack, code_digest, summary
from tools.local.supervisor import Service, StopRequested, Supervisor, Task

OTHER_START_LIMIT_SECONDS = 180.0
HEALTH_LIMIT_SECONDS = 30.0
DOWN_LIMIT_SECONDS = 90.0

Say = Callable[[str], None]


def supervise(
    home: Home,
    *,
    say: Say,
    announce: Callable[[str], None],
    steps: Sequence[Service | Task] | None = None,
) -> int:
    """Run a stack until it is asked to end; the exit status. `announce` is called once, when it is ready or cannot be.

    `steps` stands in for the real stack's steps in tests.
    """
    lock = home.lock()
    if lock is None:
        announce(f"another stack is running in {home.root}")
        return 1
    end_leftovers(home, say)
    home.forget_stack()
    home.failure_file.unlink(missing_ok=True)
    supervisor: Supervisor | None = None
    try:
        stack = Stack(home, home.choose_ports())
        ready = False

        def changed(pids: Mapping[str, int]) -> None:
            assert supervisor is not None
            home.write_processes(supervisor.identities())
            if ready:
                home.write_stack(stack.file(pids))

        supervisor = Supervisor(stack.steps() if steps is None else steps, say, on_change=changed)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: supervisor.request_stop())
        supervisor.start()
        ready = True
        changed(supervisor.pids())
        announce(summary(home, stack.file(supervisor.pids())))
        supervisor.watch()
    except StopRequested:
        announce("stopped before it was ready")
        return 1
    except StackError as failure:
        home.failure_file.write_text(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {failure}\n")
        say(str(failure))
        announce(f"Holdfast is not running: {failure}")
        return 1
    finally:
        home.forget_stack()
        lock.close()
    return 0


def up_detached(home: Home, say: Say) -> int:
    """Start a stack behind the terminal and return when it is ready; the exit status."""
    running = _find_running(home, say)
    if running is not None:
        return running
    read_end, write_end = os.pipe()
    home.log("supervisor").parent.mkdir(parents=True, exist_ok=True)
    with home.log("supervisor").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools", "up", "--report-to", str(write_end)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[write_end],
            start_new_session=True,
            cwd=ROOT,
            env={
                **os.environ,
                "HOLDFAST_HOME": str(home.root),
                "PYTHONUNBUFFERED": "1",
            },
        )
    os.close(write_end)
    try:
        with os.fdopen(read_end) as progress:
            for line in progress:
                say(line.rstrip("\n"))
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        process.wait(DOWN_LIMIT_SECONDS)
        return 130
    # The pipe closes when the stack is ready; a supervisor that failed has ended, or is about to.
    if home.read_stack() is None:
        status = process.wait(DOWN_LIMIT_SECONDS)
        return status or 1
    return 0


def up_foreground(home: Home, say: Say) -> int:
    """Run a stack in this terminal until Ctrl-C; the exit status."""
    running = _find_running(home, say)
    if running is not None:
        return running
    return supervise(home, say=say, announce=lambda text: say(f"{text}\nCtrl-C ends it."))


def _find_running(home: Home, say: Say) -> int | None:
    """The exit status of an `up` that found a stack running; None when one has to be started."""
    if not home.is_locked():
        return None
    say("a stack is running here already; looking at it")
    wait_until(
        lambda: home.read_stack() is not None or not home.is_locked(),
        limit_seconds=OTHER_START_LIMIT_SECONDS,
        pause_seconds=0.2,
    )
    stack = home.read_stack()
    if stack is None:
        if not home.is_locked():
            return None
        say(
            f"it is not ready after {OTHER_START_LIMIT_SECONDS:g} s: see {home.log('supervisor')}, or `make down` first"
        )
        return 1
    if stack.code != code_digest():
        say("the code changed since it was started: restarting it with the new code")
        down(home, say)
        return None
    if not wait_until(
        lambda: http_ok(f"{stack.api_url}/readyz"),
        limit_seconds=HEALTH_LIMIT_SECONDS,
        pause_seconds=0.5,
    ):
        say(f"it is not healthy: {stack.api_url}/readyz says why. `make down && make up` starts it anew")
        return 1
    say(summary(home, stack))
    return 0


def down(home: Home, say: Say) -> int:
    """End the stack, by force after a while, and remove its files; the exit status. Nothing running is fine."""
    processes = home.read_processes()
    if not home.is_locked() and not any(process.alive() for process in processes.values()):
        home.forget_stack()
        say(f"nothing is running in {home.root}")
        return 0
    supervisor = processes.get("supervisor")
    if supervisor is not None and supervisor.send(signal.SIGTERM):
        began = time.monotonic()
        wait_until(
            lambda: not supervisor.alive(),
            limit_seconds=DOWN_LIMIT_SECONDS,
            pause_seconds=0.1,
        )
        if not supervisor.alive():
            say(f"stopped ({time.monotonic() - began:.1f} s); the data stays in {home.root}")
    elif home.is_locked():
        # A supervisor writes its pid with its first child; before that there is nobody to ask.
        wait_until(lambda: bool(home.read_processes()) or not home.is_locked(), limit_seconds=5)
        return down(home, say) if home.read_processes() else 1
    end_leftovers(home, say)
    home.forget_stack()
    return 0


def end_leftovers(home: Home, say: Say) -> None:
    """Kill what a stack left behind: only processes that are still the ones it started."""
    for role, process in home.read_processes().items():
        if process.pid != os.getpid() and process.send(signal.SIGKILL):
            say(f"{role} (pid {process.pid}) was left over and was killed")
            process.wait_gone(10)


@dataclass(frozen=True, slots=True)
class Part:
    """One process of a stack."""

    role: str
    pid: int
    alive: bool


def status(home: Home, say: Say) -> int:
    """Describe the stack; 0 when it is healthy, 1 when it is not, 3 when none is running."""
    stack = home.read_stack()
    if stack is None or not home.is_locked():
        say("starting" if home.is_locked() else f"nothing is running in {home.root}")
        if home.failure_file.exists():
            say(f"the last one ended like this:\n{home.failure_file.read_text().rstrip()}")
        return 3
    for part in _parts(stack):
        say(f"{part.role:<11} pid {part.pid:<8} {'running' if part.alive else 'not running'}")
    healthy = http_ok(f"{stack.api_url}/readyz") and all(part.alive for part in _parts(stack))
    say(summary(home, stack) if healthy else f"not healthy: see {stack.api_url}/readyz and {home.log('supervisor')}")
    return 0 if healthy else 1


def _parts(stack: StackFile) -> list[Part]:
    return [Part(role, pid, ProcessId.of(pid) is not None) for role, pid in stack.pids.items()]
