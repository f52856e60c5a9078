"""A live end that begins finds out behind which event it does, and that there is none where there must be none."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain import telling
from activities.chain.ports import ChainDesk, Lane
from db import audit, outbox
from db.audit import AuditRecord, Origin
from db.chain import cursors, sources
from db.chain.rows import put_blocks
from db.engine import transaction
from domain.chain import Head, RelayerStatus, Source
from domain.chain.following import Depths, Position, final_number
from domain.errors import Unavailable
from domain.ids import relayer_workflow_id
from kit.clock import now


async def begin(engine: AsyncEngine, desk: ChainDesk, source: Source, position: Position, head: Head) -> bool:
    """Have the contract say how many events lie before the live end; whether that had to be found out.

    Whoever registers a source names a block alone. Raises ``Unavailable`` where that block is not final yet, or nobody
    keeps the contract's state there: with a number that is guessed, honest providers would seem to lie. ``engine`` sees
    every tenant.
    """
    number = position.number
    skips = source.sequenced and position.hash is None and number >= source.start_block
    if not skips or position.last_sequence or head.latest.number < number:
        return False
    final = final_number(head, Depths(desk.confirmations, desk.finality_depth))
    if final is not None and final < number:
        raise Unavailable(f"chain:{desk.name}", f"block {number}, behind which it begins, is not final yet")
    [block] = await desk.blocks([number], Lane.LIVE)
    counter = await desk.counter(source, block, Lane.LIVE)
    if counter is None:
        raise Unavailable(f"chain:{desk.name}", f"no provider keeps the contract's state at block {number}")
    async with transaction(engine) as connection:
        await cursors.own(connection, source.source_id, position)
        await put_blocks(connection, source, [block])
        begun = replace(position, hash=block.hash, last_sequence=counter)
        await cursors.move(connection, source.source_id, begun, now(), head.latest)
    return True


async def check_beginning(engine: AsyncEngine, desk: ChainDesk, source: Source, position: Position, head: Head) -> bool:
    """Stop a relayer whose contract told of something before its first block; whether it was stopped.

    Else everything that honest providers say of it would look like a lie: its first event is never number 1.
    """
    number = source.start_block - 1
    if not source.sequenced or position.hash is not None or number != position.number or number < 0:
        return False
    if head.latest.number <= number:
        return False
    [block] = await desk.blocks([number], Lane.LIVE)
    counter = await desk.counter(source, block, Lane.LIVE)
    if not counter:
        return False
    reason = f"its contract had told {counter} events by block {number}: it is not one of ours, or began before that"
    at, subject = now(), relayer_workflow_id(source.relayer_id)
    async with transaction(engine) as connection:
        await cursors.own(connection, source.source_id, position)
        await sources.set_status(connection, source.source_id, RelayerStatus.HALTED, reason)
        await outbox.append(connection, source.tenant_id, [telling.halted(source, reason, at)])
        record = AuditRecord(subject, "chain.relayer_halted", at, Origin(workflow_id=subject), {"reason": reason})
        await audit.write(connection, source.tenant_id, record)
    return True
