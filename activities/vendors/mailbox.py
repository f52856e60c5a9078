"""The local mailbox as vendor of mail and text messages: a house without keys shows every message in its API."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.ports import Callback, Handed, Mail, NotTaken, Rejected, Sms, Taken, Unsure
from db.alerts import mailbox
from db.engine import transaction
from domain.errors import Unavailable


class LocalMailbox:
    """Keeps mail. ``engine`` sees every tenant: a message belongs to whose attempt it is."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        """As attempts record it."""
        return "mailbox"

    async def send(self, mail: Mail) -> Handed:
        """Keep it; a mail in the mailbox has arrived."""
        return await _put(self._engine, mail, "email", mail.subject, mail.html)

    async def close(self) -> None:
        """Nothing is held."""


class LocalSms:
    """Keeps text messages in the same mailbox."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        """As attempts record it."""
        return "mailbox"

    async def send(self, sms: Sms) -> Handed:
        """Keep it."""
        return await _put(self._engine, sms, "sms", None, None)

    async def find(self, sms: Sms, since: datetime) -> Handed:
        """Whether it is there."""
        del since
        try:
            async with transaction(self._engine) as connection:
                there = await mailbox.has(connection, sms.attempt_id)
        except Unavailable as absence:
            return Unsure(str(absence))
        return Taken(str(sms.attempt_id), delivered=True) if there else NotTaken("it is not in the mailbox")

    async def close(self) -> None:
        """Nothing is held."""


async def _put(engine: AsyncEngine, message: Mail | Sms, channel: str, subject: str | None, html: str | None) -> Handed:
    try:
        async with transaction(engine) as connection:
            kept = await mailbox.put(
                connection,
                message.attempt_id,
                channel=channel,
                address=message.to,
                subject=subject,
                body=message.text,
                html=html,
            )
    except Unavailable as absence:
        # The answer to a commit may have been lost.
        return Unsure(str(absence))
    if not kept:
        return Rejected("attempt_unknown", "nobody began this attempt")
    return Taken(str(message.attempt_id), delivered=True)


class LocalCallback:
    """Keeps callbacks in the same mailbox, for a house that calls nobody."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        """As attempts record it."""
        return "mailbox"

    async def send(self, callback: Callback) -> Handed:
        """Keep it."""
        kept = Sms(callback.attempt_id, callback.url, callback.body.decode(errors="replace"), 0)
        return await _put(self._engine, kept, "webhook", None, None)

    async def close(self) -> None:
        """Nothing is held."""
