"""The seals of the ledger: its signed checkpoints, and the proof that a transaction is under one of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, Field

from api.deps import Call, caller, router
from api.ledger.transfers import get_transaction
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db.sealing import proofs
from domain.errors import Refusal
from domain.identity import Scope

_STREAM = "ledger"

checkpoint_routes = router("/ledger/checkpoints", "ledger")
proof_routes = router("/ledger/transactions", "ledger")


class CheckpointView(BaseModel):
    """What a whole stream was at a moment, signed: a C2SP checkpoint (tlog-checkpoint) over its sealed batches."""

    tree_size: int = Field(description="How many batches it covers")
    note: str = Field(description="The signed note; keep it, and later ones must continue it")
    verifier_key: str = Field(
        description="The Ed25519 key that signed it, as name+id+key. Believe the copy that you were given elsewhere",
        examples=["holdfast/ledger+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"],
    )
    recorded_at: datetime


class ProofView(BaseModel):
    """How the hash of a row leads to a signed root, by the rules of RFC 6962. Hashes are hexadecimal."""

    leaf: str = Field(description="SHA-256 over a zero byte and the row's sealed form")
    entry_index: int = Field(description="Its place in the batch, from 0")
    entry_count: int
    entry_path: list[str] = Field(description="From the leaf to the root of the batch")
    batch: str = Field(
        description="The batch's head: SHA-256 over a zero byte and it is a leaf of the tree over batches; it ends in"
        " the batch's root"
    )
    batch_index: int = Field(description="Its place in the tree over batches, from 0")
    batch_path: list[str] = Field(description="From the batch's leaf to the root in the checkpoint")
    checkpoint: CheckpointView


@checkpoint_routes.get("")
async def list_checkpoints(
    call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))],
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[CheckpointView]:
    """The signed checkpoints, the newest first. There is one a minute while something is posted."""
    pager = Pager("checkpoints", {})
    before = pager.after(cursor) or None
    async with call.transaction() as connection:
        rows = await proofs.newest_checkpoints(connection, _STREAM, before=before, limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "tree_size")
    return Page(items=[checkpoint_view(row) for row in rows], next_cursor=next_cursor)


@proof_routes.get("/{transaction_id}/proof", responses=documented(404, 409))
async def read_proof(transaction_id: UUID, call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))]) -> ProofView:
    """The proof that a transaction is under the newest checkpoint; it comes within about a minute of the posting."""
    async with call.transaction() as connection:
        found = await get_transaction(call, connection, transaction_id)
        proof = await proofs.inclusion(connection, _STREAM, found.sequence, transaction_id)
    if proof is None:
        raise Refusal("not_sealed_yet", "no checkpoint covers this transaction yet; ask again in a minute")
    return proof_view(proof)


def proof_view(proof: proofs.Inclusion) -> ProofView:
    """A proof as it is answered."""
    return ProofView(
        leaf=proof.leaf.hex(),
        entry_index=proof.entry_index,
        entry_count=proof.head.entry_count,
        entry_path=[node.hex() for node in proof.entry_path],
        batch=proof.head.form(),
        batch_index=proof.head.batch_no - 1,
        batch_path=[node.hex() for node in proof.batch_path],
        checkpoint=checkpoint_view(proof.checkpoint),
    )


def checkpoint_view(row: proofs.CheckpointRow) -> CheckpointView:
    """A checkpoint as it is answered."""
    return CheckpointView(
        tree_size=row.tree_size, note=row.note, verifier_key=row.verifier_key, recorded_at=row.recorded_at
    )
