"""What processes use: CPU seconds and memory by role, and how much of the machine others took."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psutil

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_MIB = 1024 * 1024
#: Cores used by strangers from which on a figure is not to be believed.
OTHERS_CORES_MAX = 0.1


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds so far."""

    at: float
    by_role: Mapping[str, float]
    machine: float


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds by role within ``seconds``, and the cores that others kept busy meanwhile."""

    seconds: float
    by_role: Mapping[str, float]
    others_cores: float

    def per(self, operations: float) -> dict[str, float]:
        """CPU milliseconds per operation by role."""
        return {role: 1000 * used / operations for role, used in self.by_role.items()} if operations else {}


class Meter:
    """Reads the processes of a stack by role; ``driver`` is this process."""

    def __init__(self, roles: Mapping[str, int]) -> None:
        self._roles = dict(roles) | {"driver": os.getpid()}
        self.others: list[float] = []

    def add(self, role: str, pid: int) -> None:
        """One more process."""
        self._roles[role] = pid

    def remove(self, role: str) -> None:
        """It ended."""
        del self._roles[role]

    def read(self) -> Reading:
        """Now."""
        return Reading(monotonic(), {role: _cpu_seconds(role, pid) for role, pid in self._roles.items()}, _machine())

    def since(self, before: Reading) -> Usage:
        """What was used since a reading."""
        now = self.read()
        by_role = {
            role: max(0.0, used - before.by_role[role]) for role, used in now.by_role.items() if role in before.by_role
        }
        seconds = now.at - before.at
        others = max(0.0, now.machine - before.machine - sum(by_role.values())) / seconds
        self.others.append(others)
        return Usage(seconds, by_role, others)

    def memory_mib(self, *wanted: str) -> dict[str, float]:
        """Memory by role, of these or of all, in MiB: what each process has for itself, and shared pages by their
        share."""
        return {
            role: sum(_pss(one) for one in _family(role, pid)) / _MIB
            for role, pid in self._roles.items()
            if not wanted or role in wanted
        }


def _family(role: str, pid: int) -> list[psutil.Process]:
    """A process with its children; the driver without, for they are somebody else's role."""
    try:
        process = psutil.Process(pid)
        return [process] if role in ("driver", "supervisor") else [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_seconds(role: str, pid: int) -> float:
    total = 0.0
    for process in _family(role, pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        if process.pid == pid and role not in ("driver", "supervisor"):
            total += times.children_user + times.children_system
    return total


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def _machine() -> float:
    """CPU seconds that were used on the whole machine, by anybody."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    user, nice, system, _idle, _wait, irq, soft, steal = fields[:8]
    return (user + nice + system + irq + soft + steal) / _TICKS_PER_SECOND
