"""A chain on this machine: anvil, as npm installed it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kit.build import ROOT
from tools.local.process import StackError, spawn, stop, tail, wait_until

#: Where npm puts what ``package-lock.json`` of this folder pins.
PACKAGES = ROOT / "tests" / "npm"
START_SECONDS = 20.0

_LISTENING = re.compile(r"^Listening on (\S+)$", re.MULTILINE)


def anvil_program() -> Path | None:
    """The program itself, so that ending it ends it; None where it is not installed."""
    packages = PACKAGES / "node_modules" / "@foundry-rs"
    # With a Node below 20 npm passes over the platform's own package, and anvil fetches the binary into its own.
    return next(iter([*packages.glob("anvil-*/bin/anvil"), *packages.glob("anvil/anvil")]), None)


@contextmanager
def anvil(program: Path, log: Path, *options: str, port: int = 0) -> Iterator[str]:
    """A chain that lasts for a block of code; its URL. Gas is free on it, so that coins add up.

    Port 0 takes any free one. Raises ``StackError`` where it does not start.
    """
    free: Sequence[str] = ("--base-fee", "0", "--gas-price", "0")
    process = spawn(
        [str(program), "--port", str(port), *free, *options], log=log, death_signal=signal.SIGKILL, fresh_log=True
    )
    try:
        listens = wait_until(
            lambda: process.poll() is not None or _LISTENING.search(log.read_text()) is not None,
            limit_seconds=START_SECONDS,
        )
        found = _LISTENING.search(log.read_text())
        if not listens or found is None:
            raise StackError(f"anvil did not start:\n{tail(log)}")
        yield f"http://{found[1]}"
    finally:
        stop(process, first=signal.SIGKILL, limit_seconds=10)
