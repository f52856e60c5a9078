"""What was seen on chains, with what became of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query
from pydantic import StringConstraints

from api.chain.models import BLOCK_MAX, ChainEventView
from api.chain.views import event_view
from api.deps import Call, caller, router
from api.fields import Line
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from db.chain import events
from db.chain.events import EventFilter, Finality, Orphans, Place
from domain.errors import Refusal
from domain.identity import Scope

_HEX = r"^0x(?:[0-9a-fA-F]{2}){1,190}$"
Hexadecimal = Annotated[str, StringConstraints(max_length=382, pattern=_HEX)]
Word = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{64}$")]
Address = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$")]
Height = Annotated[int | None, Query(ge=0, le=BLOCK_MAX)]

routes = router("/chain/events", "chain")


@routes.get("")
async def list_chain_events(
    call: Annotated[Call, Depends(caller(Scope.CHAIN_READ))],
    relayer_id: Annotated[Line | None, Query()] = None,
    kind: Annotated[Line | None, Query(description="As the contract names it: `Funded`, `Released` …")] = None,
    subject: Annotated[Hexadecimal | None, Query(description="An escrow's id on chain, or an output script")] = None,
    escrow_id: Annotated[UUID | None, Query(description="What an escrow here follows")] = None,
    account: Annotated[Hexadecimal | None, Query(description="Who acted, or was paid")] = None,
    token: Annotated[Address | None, Query(description="Zeros are the chain's own coin")] = None,
    tx_hash: Annotated[Word | None, Query()] = None,
    from_block: Height = None,
    to_block: Height = None,
    finality: Annotated[Finality, Query(description="At least so sure")] = Finality.SEEN,
    orphans: Annotated[Orphans, Query(description="What becomes of events whose block was left")] = Orphans.EXCLUDE,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[ChainEventView]:
    """Events of everything that is followed, relayer by relayer, of each the newest block first. Service keys only.

    An event is here as soon as its block was seen; money moves once `finality` says `finalized`.
    """
    call.require_service_key()
    if from_block is not None and to_block is not None and from_block > to_block:
        raise Refusal("block_range_invalid", "to_block lies before from_block", field="to_block")
    wanted = EventFilter(
        relayer_id=relayer_id,
        kind=kind,
        subject=_bytes(subject),
        escrow_id=escrow_id,
        account=_bytes(account),
        token=_bytes(token),
        tx_hash=_bytes(tx_hash),
        from_block=from_block,
        to_block=to_block,
        finality=finality,
        orphans=orphans,
    )
    pager = Pager("chain events", asdict(wanted))
    before = _place(pager.position(cursor))
    async with call.transaction() as connection:
        rows = list(await events.list_(connection, wanted, before=before, limit=limit + 1))
    next_cursor = None
    if len(rows) > limit:
        rows = rows[:limit]
        next_cursor = pager.token(_position(rows[-1].place))
    return Page(items=[event_view(row, call.services.chains) for row in rows], next_cursor=next_cursor)


def _bytes(written: str | None) -> bytes | None:
    return None if written is None else bytes.fromhex(written[2:])


def _position(place: Place) -> str:
    return f"{place.source_id}:{place.block_number}:{place.log_index}:{place.block_hash.hex()}"


def _place(position: str | None) -> Place | None:
    """The place that a cursor holds; its checksum says that it is one of ours."""
    if position is None:
        return None
    source, block, log, block_hash = position.split(":")
    return Place(int(source), int(block), int(log), bytes.fromhex(block_hash))
