"""What the outside must offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from domain.errors import Unavailable
from domain.prices.model import Reading


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event on its way to a broker; ``payload`` is the JSON of the feed."""

    event_id: UUID
    tenant_id: UUID
    position: int
    topic: str
    type: str
    subject: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """What a broker acknowledged: ``sequences`` of the first events, in their order, and why not the next one, if not
    all. ``refused`` says that it will never take that one; ``absence`` that it does not answer now."""

    sequences: Sequence[int] = field(default=())
    refused: str | None = None
    absence: Unavailable | None = None


class Publisher(Protocol):
    """A broker outside, that keeps what it acknowledged and drops what comes again."""

    @property
    def stream(self) -> str:
        """The name of the stream that it publishes to."""

    async def publish(self, events: Sequence[Outgoing]) -> Published:
        """Publish in order; an event goes out only behind those before it. Never raises for what the broker does."""

    async def close(self) -> None:
        """Let go of the connection; a later call opens another."""


class PriceSource(Protocol):
    """Somebody outside who says what assets are worth."""

    @property
    def name(self) -> str:
        """What the configuration calls it."""

    @property
    def assets(self) -> Sequence[str]:
        """Whose prices it is asked for."""

    async def read(self) -> Sequence[Reading]:
        """What it says of each of its assets: a price, or a fault in words without any key or address.

        Never raises for what the source does, and answers within its own limit.
        """

    async def close(self) -> None:
        """Let go of connections; a later call opens others."""
