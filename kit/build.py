"""The build id: a name for the code that workers run, the same on every machine that has the same source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKER_SOURCES = (
    "domain",
    "db",
    "activities",
    "workflows",
    "kit",
    "contracts/escrow.json",
    "worker.py",
    "outside.py",
    "chainwork.py",
    "crew.py",
    "requirements/runtime.txt",
)
API_SOURCES = ("api",)
BUILD_ID_LENGTH = 12


def build_id(root: Path = ROOT) -> str:
    """The build of the worker: it changes whenever anything that a worker runs changes."""
    return digest(root, WORKER_SOURCES)


def digest(root: Path, sources: Iterable[str]) -> str:
    """A short hash over the names and contents of the Python files below `sources` (files are taken as they are)."""
    total = hashlib.sha256()
    for file in sorted(_files(root, sources)):
        total.update(f"{file.relative_to(root).as_posix()}\0".encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:BUILD_ID_LENGTH]


def _files(root: Path, sources: Iterable[str]) -> Iterable[Path]:
    for source in sources:
        path = root / source
        if path.is_file():
            yield path
        else:
            yield from path.rglob("*.py")
