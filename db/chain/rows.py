"""Blocks and events as rows. Many come at once, so they are copied; the caller made room for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.engine import copy_records, driver_uuid
from domain.chain import Block, Event, Source
from domain.chain.identity import ConsumerIds

_BLOCK_COLUMNS: Final = ("source_id", "tenant_id", "number", "hash", "parent_hash", "at")
_EVENT_COLUMNS: Final = ("source_id", "tenant_id", *Event._fields[:-1], "at", "consumer_id")
_AMOUNT: Final = Event._fields.index("amount")


async def copy_blocks(connection: AsyncConnection, source: Source, blocks: Iterable[Block]) -> None:
    """Append blocks of a source, canonical; none of them may be there already, left or not."""
    rows = [
        (source.source_id, source.tenant_id, block.number, block.hash, block.parent_hash, instant_of(block.at_seconds))
        for block in blocks
    ]
    if rows:
        await copy_records(connection, "chain_blocks", _BLOCK_COLUMNS, rows)


async def copy_events(connection: AsyncConnection, source: Source, events: Sequence[Event]) -> int:
    """Append events of a source, canonical and not settled yet; answers how many.

    None of them may be there already: whoever refills a range deletes it in the same transaction.
    """
    if not events:
        return 0
    return await copy_records(connection, "chain_events", _EVENT_COLUMNS, _event_rows(source, events))


async def put_blocks(connection: AsyncConnection, source: Source, blocks: Iterable[Block]) -> None:
    """Write blocks, canonical from now on; those that are there, or were left once, become so again."""
    rows = [(block.number, block.hash, block.parent_hash, instant_of(block.at_seconds)) for block in blocks]
    if rows:
        numbers, hashes, parents, times = (list(column) for column in zip(*rows, strict=True))
        await connection.execute(
            text(
                "INSERT INTO chain_blocks (source_id, tenant_id, number, hash, parent_hash, at)"
                " SELECT :source, :tenant, number, hash, parent, at FROM unnest(CAST(:numbers AS bigint[]),"
                " CAST(:hashes AS bytea[]), CAST(:parents AS bytea[]), CAST(:times AS timestamptz[]))"
                " AS b (number, hash, parent, at)"
                " ON CONFLICT (source_id, number, hash) DO UPDATE SET canonical = true"
                " WHERE NOT chain_blocks.canonical"
            ),
            {
                "source": source.source_id,
                "tenant": source.tenant_id,
                "numbers": numbers,
                "hashes": hashes,
                "parents": parents,
                "times": times,
            },
        )


def instant_of(seconds: int) -> datetime:
    """A block's time, aware."""
    return datetime.fromtimestamp(seconds, UTC)


def _event_rows(source: Source, events: Sequence[Event]) -> Iterator[tuple[Any, ...]]:
    """Rows in the order of ``_EVENT_COLUMNS``, which is that of an event's own fields."""
    head = (source.source_id, driver_uuid(source.tenant_id.bytes))
    consumer_id = ConsumerIds(source.namespace).of
    seconds, at = 0, instant_of(0)
    for event in events:
        if event.at_seconds != seconds:
            seconds = event.at_seconds
            at = instant_of(seconds)
        amount = event.amount
        yield (
            *head,
            *event[:_AMOUNT],
            None if amount is None else Decimal(amount),
            event.payload,
            at,
            driver_uuid(consumer_id(event.tx_hash, event.ordinal)),
        )
