"""Every checkpoint that was signed, from the database and from outside, and where these two tell different stories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from activities.sealing.outside import CheckpointFile
from domain.sealing.notes import Checkpoint, NoteInvalid, read
from kit.signing import verify


@dataclass(slots=True)
class Signed:
    """The roots that were signed by size, and what is wrong with the checkpoints themselves."""

    roots: dict[int, bytes] = field(default_factory=dict)
    outside: set[int] = field(default_factory=set)
    inside: set[int] = field(default_factory=set)
    origins: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    last_at: str | None = None

    def take(self, checkpoint: Checkpoint, what: str) -> None:
        """Count a signed checkpoint; one that contradicts another of its size is a fault."""
        known = self.roots.setdefault(checkpoint.size, checkpoint.root)
        if known != checkpoint.root:
            self.faults.append(f"{what}: another checkpoint of {checkpoint.size} batches was signed with another root")
        if checkpoint.origin not in self.origins:
            self.origins.append(checkpoint.origin)

    def compare(self) -> None:
        """Find the first checkpoint that only one of the two has."""
        lost = sorted(self.outside - self.inside)
        if lost:
            self.faults.append(
                f"the database has no checkpoint of {lost[0]} batches, which was signed and written outside: dropped"
            )
        # A crash may have kept the newest one from the file; the next worker adds it.
        cut = sorted(self.inside - self.outside - {max(self.inside, default=0)})
        if cut:
            self.faults.append(
                f"the checkpoints outside lack the one of {cut[0]} batches, which was signed: cut off,"
                " or no worker has written there since"
            )


def collect(
    connection: psycopg.Connection[Any], stream: str, directories: Sequence[Path], keys: Sequence[bytes]
) -> Signed:
    """Read both, checking every signature; what is not signed by one of ``keys`` counts for nothing but a fault."""
    signed = Signed()
    for directory in directories:
        for checkpoint in _outside(signed, CheckpointFile(directory, stream), keys):
            signed.outside.add(checkpoint.size)
    with connection.cursor("checkpoints") as cursor:
        cursor.itersize = 1_000
        cursor.execute(
            "SELECT tree_size, root, note, recorded_at FROM seal_checkpoints WHERE stream = %s ORDER BY tree_size",
            [stream],
        )
        for size, root, note, at in cursor:
            what = f"the database's checkpoint of {size} batches"
            found = _read(signed, note, keys, what)
            if found is None:
                continue
            if (found.size, found.root) != (size, bytes(root)):
                signed.faults.append(f"{what}: its note was signed for {found.size} batches or another root")
            signed.take(found, what)
            signed.inside.add(found.size)
            signed.last_at = f"{at:%Y-%m-%d %H:%M:%S}Z"
    signed.compare()
    return signed


def _outside(signed: Signed, file: CheckpointFile, keys: Sequence[bytes]) -> Iterator[Checkpoint]:
    before = 0
    for line in file.lines():
        if isinstance(line, int):
            signed.faults.append(f"{file.path}, line {line}: this is no checkpoint: damaged")
            continue
        what = f"{file.path}, line {line.number}"
        checkpoint = _read(signed, line.note, keys, what)
        if checkpoint is None:
            continue
        if checkpoint.size <= before or checkpoint.size != line.size:
            signed.faults.append(f"{what}: {checkpoint.size} batches after {before}: edited or reordered")
        before = checkpoint.size
        signed.take(checkpoint, what)
        yield checkpoint


def _read(signed: Signed, note: str, keys: Sequence[bytes], what: str) -> Checkpoint | None:
    reason = "there is no key to check it with"
    for key in keys:
        try:
            return read(note, key, verify)
        except NoteInvalid as error:
            reason = str(error)
    signed.faults.append(f"{what}: {reason}")
    return None
