"""What following a chain tells the outside: events of topic ``settlement.events.v1``, subject the relayer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from db.chain.rows import instant_of
from db.chain.writing import Left
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from domain.chain import Event, Source, consumer_id
from domain.chain.lineage import Reorg
from domain.ids import relayer_workflow_id


def told(source: Source, type_: str, at: datetime, data: dict[str, Any]) -> OutboxEvent:
    """An event about a relayer; ``relayer_id`` leads its data."""
    return OutboxEvent(
        event_id=new_id(),
        topic=SETTLEMENT_TOPIC,
        type=type_,
        subject=relayer_workflow_id(source.relayer_id),
        occurred_at=at,
        data={"relayer_id": source.relayer_id, **data},
    )


def applied(source: Source, events: Iterable[Event], at: datetime) -> Iterator[OutboxEvent]:
    """What a piece brought, in the chain's order."""
    namespace = source.namespace
    for event in events:
        consumer = consumer_id(namespace, event.tx_hash, event.ordinal)
        yield told(source, "chain.event_applied", at, _data(source, event, consumer, instant_of(event.at_seconds)))


def reverted(source: Source, events: Iterable[Left], at: datetime) -> Iterator[OutboxEvent]:
    """What the chain has left, newest first."""
    for event in events:
        yield told(source, "chain.event_reverted", at, _data(source, event, event.consumer_id, event.at))


def finalized(source: Source, block_number: int, last_sequence: int | None, at: datetime) -> OutboxEvent:
    """Events became final: everything up to this block. ``last_sequence`` is 0 where events are not numbered."""
    return told(source, "chain.finalized", at, {"block_number": block_number, "last_sequence": last_sequence or 0})


def reorganized(source: Source, reorg: Reorg, events_reverted: int, at: datetime) -> OutboxEvent:
    """The chain left blocks; what is told behind it are their events."""
    return told(
        source,
        "chain.reorganized",
        at,
        {
            "ancestor_number": reorg.ancestor.number,
            "depth": reorg.depth,
            "old_hash": hexed(reorg.old_hash),
            "new_hash": hexed(reorg.new_hash),
            "reverted": events_reverted,
            "providers": list(reorg.providers),
        },
    )


def halted(source: Source, reason: str, at: datetime) -> OutboxEvent:
    """The relayer stopped by itself."""
    return told(source, "chain.relayer_halted", at, {"reason": reason})


def hexed(value: bytes) -> str:
    """As the chain's users write it."""
    return f"0x{value.hex()}"


def _maybe(value: bytes | None) -> str | None:
    return None if value is None else hexed(value)


def _data(source: Source, event: Event | Left, consumer: UUID, at: datetime) -> dict[str, Any]:
    return {
        "chain": source.chain,
        "consumer_id": str(consumer),
        "kind": event.kind,
        "sequence": event.sequence,
        "subject": _maybe(event.subject),
        "account": _maybe(event.account),
        "token": _maybe(event.token),
        "amount": None if event.amount is None else str(event.amount),
        "block_number": event.block_number,
        "block_hash": hexed(event.block_hash),
        "tx_hash": hexed(event.tx_hash),
        "log_index": event.log_index,
        "at": at.isoformat(),
    }
