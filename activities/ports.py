"""What the outside must offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
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


@dataclass(frozen=True, slots=True)
class Taken:
    """Whom a message was handed to has it. ``delivered`` where the answer itself says that it arrived, as a callback's
    2xx does; a vendor's receipt says so later."""

    reference: str
    detail: str = ""
    delivered: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """Whom a message was handed to will never take it; ``code`` is theirs."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The message was certainly not acted on, and may be handed over again, not before ``retry_after_seconds``."""

    detail: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Unsure:
    """The message may have been acted on, or not: find out before it is handed over again."""

    detail: str


#: What became of handing a message over. Details are in words, without any key or address.
Handed = Taken | Rejected | NotTaken | Unsure


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to one recipient. ``attempt_id`` goes along and comes back in the vendor's receipts."""

    attempt_id: UUID
    to: str
    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Sms:
    """A text message to one number (E.164). It is of no use to anybody after ``useful_seconds``."""

    attempt_id: UUID
    to: str
    text: str
    useful_seconds: int


@dataclass(frozen=True, slots=True)
class Callback:
    """A signed request to a user's own system; the body is exactly these bytes. ``message_id`` stays the same over
    attempts."""

    attempt_id: UUID
    message_id: str
    url: str
    secret: bytes
    body: bytes


class MailSender(Protocol):
    """Who sends mail."""

    @property
    def name(self) -> str:
        """The vendor, as attempts record it."""

    async def send(self, mail: Mail) -> Handed:
        """Hand it over once, within a limit of its own. Never raises for what the vendor does."""

    async def close(self) -> None:
        """Let go of connections; a later call opens others."""


class SmsSender(Protocol):
    """Who sends text messages."""

    @property
    def name(self) -> str:
        """The vendor, as attempts record it."""

    async def send(self, sms: Sms) -> Handed:
        """Hand it over once, within a limit of its own. Never raises for what the vendor does."""

    async def find(self, sms: Sms, since: datetime) -> Handed:
        """What became of an attempt that was begun at ``since`` and whose answer was lost: ``Taken`` with its
        reference, ``NotTaken`` when the vendor does not know it, ``Unsure`` when that cannot be said now."""

    async def close(self) -> None:
        """Let go of connections; a later call opens others."""


class CallbackSender(Protocol):
    """Who calls users' own systems."""

    @property
    def name(self) -> str:
        """As attempts record it."""

    async def send(self, callback: Callback) -> Handed:
        """Sign and send it once, within one limit over everything. Never raises for what the other side does."""

    async def close(self) -> None:
        """Let go of connections; a later call opens others."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A stranger's server answered. ``headers`` in lower case, several of one name joined by ``, ``; ``truncated`` says
    that ``body`` is not all of it: more than was to be read, cut off, or not there when the time was over."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool
    duration_ms: int


@dataclass(frozen=True, slots=True)
class NotSent:
    """Certainly nothing of the request reached anybody. ``blocked``: the address is none that we may call, and not a
    connection was opened. ``reason`` is fit for the owner of the URL."""

    reason: str
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The request may have arrived, and nothing usable came back within the deadline."""

    reason: str
    duration_ms: int


#: What became of a request to a stranger's URL.
Reached = Answered | NotSent | NoAnswer


class Outward(Protocol):
    """The one door through which requests to strangers' URLs leave. It never reaches inside."""

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, deadline_seconds: float, read_bytes: int
    ) -> Reached:
        """POST once: one deadline over looking up, connecting, sending and reading, at most ``read_bytes`` of the
        answer. No redirect is followed, nothing is sent twice. Never raises for what the other side does."""

    async def close(self) -> None:
        """Let go of connections; a later call opens others."""
