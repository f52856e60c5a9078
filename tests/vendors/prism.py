"""A judge between an SDK and a double: Prism, with the vendor's own description of its interface.

It passes on what is as described and answers itself what is not: 4xx for a request, 500 for an answer.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from tests.npm.programs import FOLDER, node
from tools.local.process import free_port, tail

ROOT = Path(__file__).resolve().parents[2]
#: The vendors' descriptions (MIT) are not part of this repository; they lie beside it where it is developed.
SPECS = Path(os.environ.get("VENDOR_SPECS") or ROOT.parent / "shared" / "specs")
START_SECONDS = 60.0


def described(file: str) -> Path:
    """A vendor's description. Without it a test is skipped, for a stranger's clone has none."""
    if not (SPECS / file).is_file():
        pytest.skip(f"{file} is not there: the vendors' descriptions lie outside the repository (VENDOR_SPECS=folder)")
    return SPECS / file


@asynccontextmanager
async def judged(file: str, upstream: str, log: Path, *, errors: bool = True) -> AsyncIterator[str]:
    """The address of a judge before ``upstream``. Without ``errors`` it passes everything on and only says what is
    wrong, in the header ``sl-violations``."""
    port = free_port()
    process = _start(described(file), upstream, port, log, errors)
    try:
        with anyio.fail_after(START_SECONDS):
            while not _listens(port):
                assert process.poll() is None, tail(log)
                await anyio.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _start(spec: Path, upstream: str, port: int, log: Path, errors: bool) -> subprocess.Popen[bytes]:
    program = node("@stoplight/prism-cli")
    command = [program, str(FOLDER / "node_modules" / ".bin" / "prism"), "proxy", str(spec), upstream]
    command += ["--host", "127.0.0.1", "--port", str(port), "--verboseLevel", "warn", *["--errors"] * errors]
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=_quiet())


def _quiet() -> dict[str, str]:
    """What a program needs, and nothing that would lead it elsewhere."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
