"""Reading what can be sealed, writing seals, and finding how far it is safe to go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.sealing.streams import Stream
from domain.sealing.merkle import HASH_BYTES, Frontier, Nodes, edge
from domain.sealing.records import BatchHead

_SEALER_LOCK = 0x486F6C64_00000006

_HEAD = text(
    """
    SELECT stream, batch_no, first_key, last_key, entry_count, total_count, root FROM seal_batches
    WHERE stream = :stream ORDER BY batch_no DESC LIMIT 1
    """
)
_ENTRIES = """
SELECT string_agg(
    int8send(e.key) || uuid_send(e.tenant) || e.id || sha256('\\x00'::bytea || convert_to(e.form, 'UTF8')), ''::bytea
    ORDER BY e.key
) AS entries
FROM ({entries}) AS e
"""


class NotSealable(Exception):
    """A stream's table is not made so that its order can be trusted; the message says why."""


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A signed checkpoint as the database has it."""

    tree_size: int
    root: bytes
    note: str
    verifier_key: str
    recorded_at: datetime


async def take_turn(connection: AsyncConnection) -> bool:
    """Whether this transaction is the one that seals; others stand aside until it ends.

    Rows are found through the keys from here on: a plan made for an empty table would read a full one from end to end.
    """
    turn = text(
        "SELECT pg_try_advisory_xact_lock(:lock), set_config('enable_seqscan', 'off', true),"
        " set_config('enable_bitmapscan', 'off', true)"
    )
    return bool(await connection.scalar(turn, {"lock": _SEALER_LOCK}))


async def newest_key(connection: AsyncConnection, stream: Stream) -> int:
    """The highest key that was committed; 0 in an empty stream. Raises ``NotSealable`` for keys out of a cache."""
    row = (
        await connection.execute(
            text(
                f"""
                SELECT coalesce((SELECT max({stream.key}) FROM {stream.table}), 0) AS newest, (
                    SELECT s.seqcache FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid
                    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                    WHERE d.refobjid = '{stream.table}'::regclass AND a.attname = '{stream.key}' AND d.deptype = 'i'
                ) AS cache
                """
            )
        )
    ).one()
    if row.cache != 1:
        raise NotSealable(f"{stream.table}.{stream.key} must be an identity column with CACHE 1, it has {row.cache}")
    return int(row.newest)


async def writers(connection: AsyncConnection, stream: Stream) -> frozenset[str]:
    """The transactions that may have a row of the stream under way, prepared ones included.

    Every INSERT takes a ROW EXCLUSIVE lock on its table before it draws a key, and keeps it until its commit is visible
    or its rows are gone. So once the writers that were there when key n was seen are there no more, no row with a key
    up to n can still appear. Readers and writers of other tables, other databases, replication slots and whatever
    else holds back ``xmin`` do not delay this; nor does it miss a key that was drawn before its transaction had an id,
    as the rule "all transactions below xmax are gone" would.
    """
    rows = await connection.execute(
        text(
            "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'"
            " AND granted AND relation = CAST(CAST(:name AS text) AS regclass)"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ),
        {"name": stream.table},
    )
    return frozenset(str(row[0]) for row in rows)


async def last_batch(connection: AsyncConnection, stream: Stream) -> BatchHead | None:
    """The last batch."""
    row = (await connection.execute(_HEAD, {"stream": stream.name})).one_or_none()
    return None if row is None else BatchHead(*row)


async def entries(connection: AsyncConnection, stream: Stream, *, after: int, until: int, limit: int) -> bytes:
    """The entries of up to ``limit`` rows with ``after < key <= until``, in order; see ``domain.sealing.records``."""
    found = await connection.scalar(
        text(_ENTRIES.format(entries=stream.entries)), {"after": after, "until": until, "limit": limit}
    )
    return bytes(found or b"")


async def insert_batch(connection: AsyncConnection, head: BatchHead, raw: bytes, made: Sequence[bytes]) -> None:
    """Write a batch with its entries and the nodes that it completes."""
    await connection.execute(
        text(
            "INSERT INTO seal_batches (stream, batch_no, first_key, last_key, entry_count, total_count, root, nodes,"
            " entries) VALUES (:stream, :batch_no, :first_key, :last_key, :entry_count, :total_count, :root, :nodes,"
            " :entries)"
        ),
        {
            "stream": head.stream,
            "batch_no": head.batch_no,
            "first_key": head.first_key,
            "last_key": head.last_key,
            "entry_count": head.entry_count,
            "total_count": head.total_count,
            "root": head.root,
            "nodes": b"".join(made),
            "entries": raw,
        },
    )


async def nodes_of(connection: AsyncConnection, stream_name: str, leaves: Sequence[int]) -> Nodes:
    """The kept nodes that end with these leaves of the tree over batches (leaf 0 is batch 1)."""
    rows = await connection.execute(
        text("SELECT batch_no - 1, nodes FROM seal_batches WHERE stream = :stream AND batch_no = ANY(:numbers)"),
        {"stream": stream_name, "numbers": [leaf + 1 for leaf in sorted(set(leaves))]},
    )
    kept = {int(leaf): bytes(nodes) for leaf, nodes in rows}

    def node(level: int, last: int) -> bytes:
        return kept.get(last, b"")[level * HASH_BYTES : (level + 1) * HASH_BYTES]

    return node


async def frontier(connection: AsyncConnection, stream: Stream, size: int) -> Frontier:
    """The right edge of the tree over the first ``size`` batches, as the database keeps it."""
    return Frontier.of(size, await nodes_of(connection, stream.name, [last for _, last in edge(size)]))


async def heads(connection: AsyncConnection, stream: Stream, *, after: int, limit: int) -> list[BatchHead]:
    """Up to ``limit`` batches behind batch ``after``, in order."""
    rows = await connection.execute(
        text(
            "SELECT stream, batch_no, first_key, last_key, entry_count, total_count, root FROM seal_batches"
            " WHERE stream = :stream AND batch_no > :after ORDER BY batch_no LIMIT :limit"
        ),
        {"stream": stream.name, "after": after, "limit": limit},
    )
    return [BatchHead(*row) for row in rows]


async def list_checkpoints(
    connection: AsyncConnection, stream_name: str, *, after: int, limit: int
) -> list[CheckpointRow]:
    """Up to ``limit`` checkpoints above the size ``after``, in order."""
    rows = await connection.execute(
        text(
            "SELECT tree_size, root, note, verifier_key, recorded_at FROM seal_checkpoints"
            " WHERE stream = :stream AND tree_size > :after ORDER BY tree_size LIMIT :limit"
        ),
        {"stream": stream_name, "after": after, "limit": limit},
    )
    return [CheckpointRow(*row) for row in rows]


async def last_checkpoint(connection: AsyncConnection, stream_name: str) -> CheckpointRow | None:
    """The newest checkpoint."""
    row = (
        await connection.execute(
            text(
                "SELECT tree_size, root, note, verifier_key, recorded_at FROM seal_checkpoints"
                " WHERE stream = :stream ORDER BY tree_size DESC LIMIT 1"
            ),
            {"stream": stream_name},
        )
    ).one_or_none()
    return None if row is None else CheckpointRow(*row)


async def insert_checkpoint(
    connection: AsyncConnection, stream: Stream, *, tree_size: int, root: bytes, note: str, verifier_key: str
) -> None:
    """Write a signed checkpoint."""
    await connection.execute(
        text(
            "INSERT INTO seal_checkpoints (stream, tree_size, root, note, verifier_key)"
            " VALUES (:stream, :tree_size, :root, :note, :verifier_key)"
        ),
        {"stream": stream.name, "tree_size": tree_size, "root": root, "note": note, "verifier_key": verifier_key},
    )


async def waiting(connection: AsyncConnection, stream: Stream, *, after: int) -> float:
    """The age in seconds of the oldest committed row behind the key ``after``; 0 when there is none."""
    age = await connection.scalar(
        text(
            f"SELECT extract(epoch FROM clock_timestamp() - recorded_at) FROM {stream.table}"
            f" WHERE {stream.key} > :after ORDER BY {stream.key} LIMIT 1"
        ),
        {"after": after},
    )
    return max(0.0, float(age or 0))
