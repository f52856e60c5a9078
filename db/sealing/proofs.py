"""What a tenant may see of the seals: the signed checkpoints, and the hashes that lead from its own rows to them."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.sealing.queries import CheckpointRow, last_checkpoint, nodes_of
from domain.sealing.merkle import HASH_BYTES, inclusion_nodes, inclusion_path
from domain.sealing.records import BatchHead

__all__ = ["CheckpointRow", "Inclusion", "inclusion", "newest_checkpoints"]


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The way of one entry's hash through its batch, and of the batch through the tree, to a signed root."""

    leaf: bytes
    entry_index: int
    entry_path: list[bytes]
    head: BatchHead
    batch_path: list[bytes]
    checkpoint: CheckpointRow


async def newest_checkpoints(
    connection: AsyncConnection, stream_name: str, *, before: int | None, limit: int
) -> list[CheckpointRow]:
    """Up to ``limit`` checkpoints below the size ``before``, the newest first."""
    rows = await connection.execute(
        text(
            "SELECT tree_size, root, note, verifier_key, recorded_at FROM seal_checkpoints WHERE stream = :stream"
            " AND tree_size < coalesce(CAST(:before AS bigint), 9223372036854775807)"
            " ORDER BY tree_size DESC LIMIT :limit"
        ),
        {"stream": stream_name, "before": before, "limit": limit},
    )
    return [CheckpointRow(*row) for row in rows]


async def inclusion(connection: AsyncConnection, stream_name: str, key: int, entry_id: UUID) -> Inclusion | None:
    """The proof for an entry of the transaction's tenant under the newest checkpoint; None while none covers it."""
    row = (
        await connection.execute(
            text(
                "SELECT batch_no, first_key, last_key, entry_count, total_count, root, place, leaves"
                " FROM seal_leaves(:stream, :key, :id)"
            ),
            {"stream": stream_name, "key": key, "id": entry_id},
        )
    ).one_or_none()
    checkpoint = await last_checkpoint(connection, stream_name)
    if row is None or checkpoint is None or checkpoint.tree_size < row.batch_no:
        return None
    head = BatchHead(
        stream_name, row.batch_no, row.first_key, row.last_key, row.entry_count, row.total_count, bytes(row.root)
    )
    raw = bytes(row.leaves)
    leaves = [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]
    index, size = head.batch_no - 1, checkpoint.tree_size
    needed: set[int] = set()

    def note(_: int, last: int) -> bytes:
        needed.add(last)
        return b""

    inclusion_nodes(index, size, note)
    nodes = await nodes_of(connection, stream_name, list(needed))
    return Inclusion(
        leaf=leaves[row.place],
        entry_index=row.place,
        entry_path=inclusion_path(leaves, row.place),
        head=head,
        batch_path=inclusion_nodes(index, size, nodes),
        checkpoint=checkpoint,
    )
