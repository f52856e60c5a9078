"""A relayer's work as its rows, where no chain is needed: what it has seen, how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.chain import coverage, rows, sources
from db.engine import transaction
from domain.chain import Block, Event, Source
from kit.evm import interface

ESCROW, ALICE, COIN = b"\x0e" * 32, b"\xaa" * 20, bytes(20)
#: When block 0 was made, in seconds since 1970; a block takes 12.
GENESIS = 1_760_000_000


def block_hash(number: int, fork: int = 0) -> bytes:
    """The hash of a block on one of several histories."""
    return bytes([0xB0 + fork]) + number.to_bytes(31)


def block(number: int, fork: int = 0) -> Block:
    """A block that continues the one below it on the same history."""
    return Block(number, block_hash(number, fork), block_hash(number - 1, fork), GENESIS + 12 * number)


def funded(number: int, sequence: int, *, log: int = 0, fork: int = 0, amount: int = 10**18) -> Event:
    """``Funded`` of one escrow, as the contract writes it."""
    said = {
        "sequence": sequence,
        "escrow_id": int.from_bytes(ESCROW),
        "by": int.from_bytes(ALICE),
        "token": 0,
        "amount": amount,
    }
    words = [said[argument.name].to_bytes(32) for argument in interface().kinds["Funded"].arguments]
    return Event(
        block_number=number,
        block_hash=block_hash(number, fork),
        tx_hash=number.to_bytes(31) + bytes([log]),
        tx_index=0,
        log_index=log,
        ordinal=0,
        kind="Funded",
        sequence=sequence,
        subject=ESCROW,
        account=ALICE,
        token=COIN,
        amount=amount,
        payload=b"".join(words),
        at_seconds=GENESIS + 12 * number,
    )


async def source_of(engine: AsyncEngine, relayer_id: str) -> Source:
    """The source of a relayer."""
    async with transaction(engine) as connection:
        found = await sources.find(connection, relayer_id)
    assert found is not None
    return found.source


async def seen(
    engine: AsyncEngine, source: Source, first: int, last: int, events: Sequence[Event] = (), **cursor: Any
) -> None:
    """Blocks and their events are here; the cursor moves to the last one, and to what else is said of it."""
    async with transaction(engine) as connection:
        await coverage.lock(connection, source.source_id)
        await rows.put_blocks(connection, source, [block(number) for number in range(first, last + 1)])
        await rows.copy_events(connection, source, events)
        await coverage.cover(connection, source.source_id, first, last)
    said = {"block_number": last, "block_hash": block_hash(last), **cursor}
    await move(engine, source, **said)


async def move(engine: AsyncEngine, source: Source, **cursor: Any) -> None:
    """The cursor says this from now on."""
    changes = ", ".join(f"{name} = :{name}" for name in cursor)
    async with transaction(engine) as connection:
        await connection.execute(
            text(f"UPDATE chain_cursors SET {changes} WHERE source_id = :source"),
            {**cursor, "source": source.source_id},
        )


async def heard(engine: AsyncEngine, source: Source, head: int, at: datetime) -> None:
    """The chain was asked then, and ended with this block."""
    await move(engine, source, head_number=head, head_at=rows.instant_of(GENESIS + 12 * head), asked_at=at)
