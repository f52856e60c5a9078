"""The folder that holds one stack: its data, its logs, its ports, and the file that says how to reach it."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tools.local.process import ProcessId, StackError, free_port, port_is_free

DEFAULT_HOME = ".holdfast"
PREFERRED_PORTS: Mapping[str, int] = {
    "api": 8080,
    "temporal": 7233,
    "temporal_ui": 8233,
    "temporal_metrics": 9233,
    "postgres": 5433,
    "worker_health": 8081,
    "chain": 8545,
}


@dataclass(frozen=True, slots=True)
class StackFile:
    """How to reach a stack that is ready; `stack.json`."""

    api_url: str
    temporal_address: str
    temporal_ui_url: str | None
    database_url: str
    api_key_file: str
    pids: Mapping[str, int]
    build_id: str
    code: str


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below HOLDFAST_HOME, and the small files kept there."""

    root: Path

    @classmethod
    def from_environment(cls) -> Home:
        """The folder that HOLDFAST_HOME names."""
        return cls(Path(os.environ.get("HOLDFAST_HOME") or DEFAULT_HOME).absolute())

    @property
    def stack_file(self) -> Path:
        """How to reach the stack while it is ready."""
        return self.root / "stack.json"

    @property
    def failure_file(self) -> Path:
        """Why the last stack ended, where it did not end by request."""
        return self.root / "failure.txt"

    @property
    def api_key_file(self) -> Path:
        """The first tenant's API key."""
        return self.root / "api-key"

    @property
    def seal_key_file(self) -> Path:
        """The key that signs checkpoints."""
        return self.root / "seal-key.pem"

    @property
    def prices_file(self) -> Path:
        """The operator's own prices."""
        return self.root / "prices.toml"

    @property
    def chains_file(self) -> Path:
        """Which chains can be followed."""
        return self.root / "chains.toml"

    @property
    def checkpoints(self) -> Path:
        """The signed checkpoints, outside the database."""
        return self.root / "checkpoints"

    @property
    def contracts(self) -> Path:
        """Compiled contracts, each under the hash of what it was made from."""
        return self.root / "contracts"

    @property
    def postgres_data(self) -> Path:
        """PostgreSQL's data folder."""
        return self.root / "postgres"

    @property
    def temporal_database(self) -> Path:
        """The Temporal server's SQLite file."""
        return self.root / "temporal" / "temporal.db"

    def log(self, name: str) -> Path:
        """The log of one role."""
        return self.root / "logs" / f"{name}.log"

    def lock(self) -> TextIO | None:
        """The lock that the stack's supervisor holds while it lives; None when it is held already."""
        self.root.mkdir(parents=True, exist_ok=True)
        return _try_lock(self.root / "lock")

    def is_locked(self) -> bool:
        """Whether a supervisor lives."""
        if not self.root.exists():
            return False
        lock = self.lock()
        if lock is None:
            return True
        lock.close()
        return False

    def write_stack(self, stack: StackFile) -> None:
        """Say that the stack is ready, and how to reach it."""
        # For the owner alone: a database URL may carry a password.
        write_atomically(self.stack_file, json.dumps(asdict(stack), indent=2) + "\n", mode=0o600)

    def read_stack(self) -> StackFile | None:
        """What the file says, or None when it is missing or not ours."""
        found = _read_json(self.stack_file)
        try:
            return StackFile(**found)
        except TypeError:
            return None

    def write_processes(self, processes: Mapping[str, ProcessId]) -> None:
        """Remember every process with its start time, so that `down` never signals a stranger."""
        content = {role: [process.pid, process.started] for role, process in processes.items()}
        write_atomically(self.root / "processes.json", json.dumps(content) + "\n")

    def read_processes(self) -> dict[str, ProcessId]:
        """The processes of the last stack by role, alive or not."""
        found = _read_json(self.root / "processes.json")
        try:
            return {role: ProcessId(int(pid), int(started)) for role, (pid, started) in found.items()}
        except (TypeError, ValueError):
            return {}

    def forget_stack(self) -> None:
        """Remove the files that speak of a running stack."""
        self.stack_file.unlink(missing_ok=True)
        (self.root / "processes.json").unlink(missing_ok=True)

    def choose_ports(self) -> Ports:
        """A port for each role: last time's, else the preferred one, else any free one. The choice is remembered."""
        remembered = _read_json(self.root / "ports.json")
        ports = Ports()
        for role, preferred in PREFERRED_PORTS.items():
            ports.take(
                role,
                [port for port in (remembered.get(role), preferred) if isinstance(port, int)],
            )
        write_atomically(self.root / "ports.json", json.dumps(ports.by_role, indent=2) + "\n")
        return ports


@dataclass(slots=True)
class Ports:
    """Chosen ports. While this lives no other stack of this user chooses them, though nothing may listen there yet."""

    by_role: dict[str, int] = field(default_factory=dict)
    _reservations: list[TextIO] = field(default_factory=list)

    def take(self, role: str, wishes: Sequence[int]) -> None:
        """Give `role` the first of `wishes` that is free, else any free port."""
        for port in (*wishes, *(free_port() for _ in range(100))):
            if port not in self.by_role.values() and port_is_free(port) and self._reserve(port):
                self.by_role[role] = port
                return
        raise StackError(f"no free port was found for {role}")

    def release(self) -> None:
        """Let other stacks choose these ports."""
        for reservation in self._reservations:
            reservation.close()
        self._reservations.clear()

    def _reserve(self, port: int) -> bool:
        folder = Path(tempfile.gettempdir()) / f"holdfast-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        reservation = _try_lock(folder / str(port))
        if reservation is None:
            return False
        self._reservations.append(reservation)
        return True


def write_atomically(file: Path, content: str, *, mode: int = 0o644) -> None:
    """Replace `file` in one step: a reader sees the old content or the new, never half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    part.replace(file)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _try_lock(path: Path) -> TextIO | None:
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
