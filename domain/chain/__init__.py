"""The rules of following a chain: what an event is, which blocks are covered, where two histories part."""

from domain.chain.codes import CODES
from domain.chain.identity import consumer_id, source_namespace
from domain.chain.model import (
    MAX_SEQUENCE,
    Block,
    Books,
    ChainKind,
    Event,
    Fetched,
    Head,
    RelayerStatus,
    Settled,
    Source,
)

__all__ = [
    "CODES",
    "MAX_SEQUENCE",
    "Block",
    "Books",
    "ChainKind",
    "Event",
    "Fetched",
    "Head",
    "RelayerStatus",
    "Settled",
    "Source",
    "consumer_id",
    "source_namespace",
]
