"""Checkpoints outside the database: a file per stream to which lines are added, safe from a crash in the middle."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_TAIL_BYTES = 64_000


class Forked(Exception):
    """The file has another checkpoint at this place."""


@dataclass(frozen=True, slots=True)
class Line:
    """A checkpoint in the file: its line (from 1), the size that it covers, when it was made, and the signed note."""

    number: int
    size: int
    at: str
    note: str


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """The checkpoints of one stream, one line of JSON each. Several processes may add to one file."""

    directory: Path
    stream: str

    @property
    def path(self) -> Path:
        """Where they are."""
        return self.directory / f"{self.stream}.jsonl"

    def last(self) -> Line | None:
        """The last whole line; None in a file without one. Raises ``OSError``."""
        try:
            with self.path.open("rb") as file:
                return _last(file)
        except FileNotFoundError:
            return None

    def add(self, *, size: int, at: str, note: str) -> None:
        """Add a checkpoint and return when it is on the disk; one that is there already is left alone.

        Raises ``Forked`` for another note at a size that is covered, and ``OSError``.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self.path.open("a+b") as file, _alone(file):
            last = _last(file)
            if last is not None and last.size >= size:
                if last.size == size and last.note != note:
                    raise Forked(f"{self.path} has another checkpoint of {size} batches")
                return
            # A line that a crash cut short is ended, and stands before the one that repeats it.
            file.write((b"" if _ends_whole(file) else b"\n") + _line(size, at, note))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(self.directory)

    def lines(self) -> Iterator[Line | int]:
        """Every line in order, and the bare number of a line that is no checkpoint, nor one cut short and repeated."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            torn: list[tuple[int, bytes]] = []
            before = b""
            for number, raw in enumerate(file, 1):
                if raw == before:
                    continue  # it was whole but for its end, and was repeated
                before, line = raw, _parsed(number, raw)
                if line is None:
                    torn.append((number, raw))
                    continue
                yield from (number for number, part in torn if not raw.startswith(part.rstrip(b"\n")))
                torn.clear()
                yield line
            # The last line may be one that was cut short just now.
            yield from (number for number, part in torn if part.endswith(b"\n"))


def _line(size: int, at: str, note: str) -> bytes:
    return json.dumps({"size": size, "at": at, "note": note}, ensure_ascii=False).encode() + b"\n"


def _parsed(number: int, raw: bytes) -> Line | None:
    try:
        found = json.loads(raw)
        line = Line(number, found["size"], found["at"], found["note"])
    except (ValueError, KeyError, TypeError):
        return None
    kinds = [type(value) for value in (found["size"], found["at"], found["note"])]
    return line if kinds == [int, str, str] and raw.endswith(b"\n") else None


def _last(file: BinaryIO) -> Line | None:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - _TAIL_BYTES))
    for raw in reversed(file.read().splitlines(keepends=True)):
        line = _parsed(0, raw)
        if line is not None:
            return line
    return None


def _ends_whole(file: BinaryIO) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


@contextmanager
def _alone(file: BinaryIO) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
