"""Child processes: start them on a leash, recognise them later, read the end of their logs."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
LOG_BYTES_MAX = 20_000_000


class StackError(Exception):
    """Something in the local stack could not be done; the message is for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid together with when that process started, so that a reused number is not mistaken for it."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The living process of this number, or None (a zombie counts as dead)."""
        try:
            # The command name may hold spaces and brackets; the numbers follow its last closing bracket.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        if fields[0] in "ZX":
            return None
        return cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return ProcessId.of(self.pid) == self

    def wait_gone(self, limit_seconds: float) -> bool:
        """Whether the process ended within the limit."""
        return wait_until(lambda: not self.alive(), limit_seconds=limit_seconds)

    def send(self, number: signal.Signals) -> bool:
        """Signal this very process; False when it is gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def command_line(pid: int) -> list[str]:
    """The arguments of a living process; empty when there is none."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0") if part]


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    user_id: int | None = None,
    fresh_log: bool = False,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `log`, or alone in it (`fresh_log`).

    It gets `death_signal` when the calling thread ends, so call this from a thread that lives as long as the child.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))
    uid = -1 if user_id is None else user_id
    leash = [
        sys.executable,
        "-I",
        "-S",
        str(LEASH),
        str(os.getpid()),
        str(int(death_signal)),
        str(uid),
    ]
    with log.open("wb" if fresh_log else "ab") as output:
        return subprocess.Popen(
            [*leash, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], *, first: signal.Signals, limit_seconds: float) -> bool:
    """Ask with `first`, insist with SIGKILL after the limit. True when asking was enough."""
    if process.poll() is not None:
        return True
    process.send_signal(first)
    try:
        process.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
        return False
    return True


def wait_until(ready: Callable[[], bool], *, limit_seconds: float, pause_seconds: float = 0.05) -> bool:
    """Poll `ready` until it holds; False when the limit passed first."""
    deadline = time.monotonic() + limit_seconds
    while not ready():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_seconds)
    return True


def free_port() -> int:
    """A port on loopback that nothing listens on right now.

    It lies below the range that outgoing connections take theirs from: a client that knocks at a stopped server there
    would sooner or later connect to itself and keep the server out.
    """
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)  # noqa: S311 - no secret
        if port_is_free(port):
            return port
    raise StackError("no free port was found on 127.0.0.1")


def port_is_free(port: int) -> bool:
    """Whether nothing listens on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def tail(log: Path, lines: int = 25) -> str:
    """The last lines of a log, or a word that there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty log)"
