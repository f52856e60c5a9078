"""The whole check, in one snapshot of one database, with nothing else of ours running."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from db.engine import Role
from domain.sealing.merkle import HASH_BYTES, Frontier, edge
from tools.seals import books
from tools.seals.findings import Finding
from tools.seals.rows import BEFORE_ALL, AttemptRows, LedgerRows, Rows
from tools.seals.scan import Scan
from tools.seals.signed import Signed, collect

CONNECT_TIMEOUT_SECONDS = 5
#: For one statement; a check of many millions of rows is a few of them.
STATEMENT_TIMEOUT = "2h"
#: The streams that can be checked, and who reads their rows.
READERS: Mapping[str, type[Rows]] = {"ledger": LedgerRows, "alerts": AttemptRows}


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and found in order."""

    entries: int
    batches: int
    checkpoints: int
    last_checkpoint_at: str | None
    unsealed: int
    unsigned_batches: int
    origins: tuple[str, ...]
    accounts: int
    holds: int
    seconds: float


def verify(
    database_url: str,
    *,
    directories: Sequence[Path],
    keys: Sequence[bytes],
    since_batch: int = 1,
    stream: str = "ledger",
) -> Report:
    """Check a stream of a database, the ledger or the log of alerts, against its seals and checkpoints.

    Raises ``Finding`` for the first thing that is wrong, and psycopg's errors for a database that cannot be read.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        seals, rows = (stack.enter_context(_connect(database_url)) for _ in range(2))
        _begin(seals)
        snapshot = seals.execute("SELECT pg_export_snapshot()").fetchone()
        assert snapshot is not None
        _begin(rows, snapshot[0])
        signed = collect(seals, stream, directories, keys)
        edge_before, after, total = _before(seals, stream, since_batch)
        reading = READERS[stream](rows, BEFORE_ALL if since_batch <= 1 else after)
        stack.callback(reading.close)
        scan = Scan(seals, reading, signed, stream, edge=edge_before, last_key=after, total=total)
        unsealed = scan.run()
        if signed.faults:
            raise Finding(signed.faults[0])
        accounts, holds = books.check(seals) if stream == "ledger" else (0, 0)
        return Report(
            entries=reading.count,
            batches=scan.edge.size - since_batch + 1,
            checkpoints=scan.checkpoints,
            last_checkpoint_at=signed.last_at,
            unsealed=unsealed,
            unsigned_batches=scan.edge.size - _covered(signed),
            origins=tuple(signed.origins),
            accounts=accounts,
            holds=holds,
            seconds=time.monotonic() - began,
        )


def _covered(signed: Signed) -> int:
    return max(signed.roots, default=0)


def _connect(database_url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        database_url,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        application_name="holdfast_verify",
        options=f"-c role={Role.ENGINE.value} -c statement_timeout={STATEMENT_TIMEOUT} -c lock_timeout=5s",
    )


def _begin(connection: psycopg.Connection[Any], snapshot: str | None = None) -> None:
    """One snapshot for everything: what is posted and sealed meanwhile is not seen by half."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    if snapshot is not None:
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))


def _before(connection: psycopg.Connection[Any], stream: str, since_batch: int) -> tuple[Frontier, int, int]:
    """The tree, the last key and the number of entries in front of a batch, as the database keeps them; the next
    signed checkpoint shows whether it keeps them rightly."""
    if since_batch <= 1:
        return Frontier.empty(), 0, 0
    row = connection.execute(
        "SELECT last_key, total_count FROM seal_batches WHERE stream = %s AND batch_no = %s", [stream, since_batch - 1]
    ).fetchone()
    if row is None:
        raise Finding(f"batch {since_batch - 1} is missing")
    kept = dict(
        connection.execute(
            "SELECT batch_no - 1, nodes FROM seal_batches WHERE stream = %s AND batch_no = ANY(%s)",
            [stream, [last + 1 for _, last in edge(since_batch - 1)]],
        ).fetchall()
    )

    def node(level: int, last: int) -> bytes:
        return bytes(kept.get(last, b""))[level * HASH_BYTES : (level + 1) * HASH_BYTES]

    return Frontier.of(since_batch - 1, node), int(row[0]), int(row[1])
