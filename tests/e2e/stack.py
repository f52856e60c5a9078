"""A stack as a person runs it: through the command line, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tools.local.home import Home, StackFile
from tools.local.process import wait_until

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("activities", "api", "contracts", "db", "deploy", "domain", "kit", "requirements", "tools", "workflows")
ROOT_MODULES = ("worker.py", "crew.py", "chainwork.py", "outside.py")
LIMIT_SECONDS = 120


def copy_source(target: Path) -> Path:
    """The source in another place, where a test may change it."""
    for name in (*SOURCES, *ROOT_MODULES):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target / name)
    return target


class CommandLine:
    """`python -m tools` for one HOLDFAST_HOME."""

    def __init__(self, home: Path, *, root: Path = ROOT, **environment: str) -> None:
        self.home = Home(home)
        self.root = root
        theirs = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "TEMPORAL_"))}
        self.environment = {**theirs, "HOLDFAST_HOME": str(home), **environment}

    def run(self, *arguments: str, status: int | None = 0) -> str:
        """What a command printed; `status` is the exit status that it must have."""
        done = subprocess.run(
            [sys.executable, "-m", "tools", *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        output = done.stdout + done.stderr
        assert status is None or done.returncode == status, f"{arguments} ended with {done.returncode}:\n{output}"
        return output

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that a test interrupts."""
        # A shell's background jobs ignore Ctrl-C, and so would what they start; one that is handled is not handed down.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "tools", *arguments],
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    @property
    def stack(self) -> StackFile:
        """How to reach the stack, as its file says now."""
        found = self.home.read_stack()
        assert found is not None, "there is no stack.json"
        return found

    def http(self) -> httpx.Client:
        """A client with the first key."""
        key = Path(self.stack.api_key_file).read_text().strip()
        return httpx.Client(base_url=self.stack.api_url, headers={"X-API-Key": key}, timeout=30)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.stack.api_url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def processes(self) -> list[int]:
        """Every living process that was started for this home, found by its environment."""
        mark = f"HOLDFAST_HOME={self.home.root}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                try:
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
                except OSError:
                    continue
        return found

    def nothing_runs(self) -> bool:
        return wait_until(lambda: not self.processes(), limit_seconds=20, pause_seconds=0.2)

    def kill_supervisor(self) -> None:
        os.kill(self.stack.pids["supervisor"], signal.SIGKILL)


@contextmanager
def running(commands: CommandLine) -> Iterator[CommandLine]:
    """Up at the beginning, down at the end, whatever happens between."""
    try:
        commands.run("up", "--detach")
        yield commands
    finally:
        commands.run("down", status=None)


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST below /api/v1; the answer must be a success."""
    answer = client.post(f"/api/v1/{path}", json=body)
    assert answer.is_success, answer.text
    content: dict[str, Any] = answer.json()
    return content


def open_funded_escrow(client: httpx.Client) -> str:
    """An escrow of 10 USDC between alice and bob, funded."""
    post(client, "accounts/alice/deposits", {"asset": "USDC", "amount": "10"})
    terms = {"asset": "USDC", "amount": "10", "buyer": {"user_id": "alice"}, "seller": {"user_id": "bob"}}
    escrow_id = post(client, "escrows", {**terms, "actor": "alice"})["escrow_id"]
    assert post(client, f"escrows/{escrow_id}/fund", {"actor": "alice"})["status"] == "funded"
    return str(escrow_id)


def pids_in_file(home: Home) -> dict[str, int]:
    """The pids as any reader of the file sees them."""
    pids: dict[str, int] = json.loads(home.stack_file.read_text())["pids"]
    return pids
