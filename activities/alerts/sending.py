"""The outside calls: handing one message over, once, and looking up what became of one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.alerts.messages import OutcomeMessage, SendAttempt, heard_of
from activities.ports import (
    Callback,
    CallbackSender,
    Handed,
    Mail,
    MailSender,
    NotTaken,
    Rejected,
    Sms,
    SmsSender,
    Unsure,
)
from db.alerts import attempts, notifications, people
from db.alerts.attempts import Entry
from db.engine import tenant_transaction
from domain.alerts.model import Channel
from domain.errors import Unavailable

#: An attempt whose row is older than this is not begun any more: whoever waited for it has given it up.
FRESH_SECONDS = 20
#: No text message is of use to anybody after so long.
USEFUL_SECONDS = 3_600
#: Vendors have limits of their own; this one holds whatever they do.
CALL_LIMIT_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Senders:
    """Who hands messages over, by channel."""

    mail: MailSender
    sms: SmsSender
    callback: CallbackSender

    def names(self) -> dict[Channel, str]:
        """As attempts record them."""
        return {Channel.EMAIL: self.mail.name, Channel.SMS: self.sms.name, Channel.WEBHOOK: self.callback.name}

    async def close(self) -> None:
        """Let go of every connection."""
        await asyncio.gather(self.mail.close(), self.sms.close(), self.callback.close())


class SendingActivities:
    """Calls to the outside. ``engine`` acts under row-level security, and only reads."""

    def __init__(self, engine: AsyncEngine, senders: Senders, *, fresh_seconds: int = FRESH_SECONDS) -> None:
        self._engine = engine
        self._senders = senders
        self._fresh_seconds = fresh_seconds

    @activity.defn(name="alerts.send")
    async def send(self, asked: SendAttempt) -> OutcomeMessage:
        """Hand a message over whose attempt is on record. Never to be retried by whoever calls: what is not known of it
        is found out first."""
        try:
            entry, fresh, over, secret = await self._read(asked)
        except Unavailable as absence:
            return heard_of(asked.attempt_id, NotTaken(f"it was not begun: {absence}"))
        if over or not fresh:
            why = "nothing more is to be sent" if over else "it came too late"
            return heard_of(asked.attempt_id, NotTaken(f"it was not begun: {why}"))
        try:
            async with asyncio.timeout(CALL_LIMIT_SECONDS):
                handed = await self._hand_over(entry, secret)
        except TimeoutError:
            handed = Unsure(f"no answer within {CALL_LIMIT_SECONDS:.0f} s")
        return heard_of(asked.attempt_id, handed)

    @activity.defn(name="alerts.find")
    async def find(self, asked: SendAttempt) -> OutcomeMessage:
        """Ask the vendor what became of a text message whose answer was lost."""
        entry, _, _, _ = await self._read(asked)
        message = Sms(asked.attempt_id, entry.address or "", entry.body or "", USEFUL_SECONDS)
        try:
            async with asyncio.timeout(CALL_LIMIT_SECONDS):
                handed = await self._senders.sms.find(message, entry.at)
        except TimeoutError:
            handed = Unsure("the vendor did not say what became of it")
        return heard_of(asked.attempt_id, handed, looked=True)

    async def _read(self, asked: SendAttempt) -> tuple[Entry, bool, bool, bytes | None]:
        """The attempt's row, whether it is fresh, whether its alert is over, and the secret of a webhook contact."""
        async with tenant_transaction(self._engine, asked.tenant_id) as connection:
            tenant, fresh = asked.tenant_id, self._fresh_seconds
            found = await attempts.begun(connection, tenant, asked.attempt_id, fresh_seconds=fresh)
            stored = await notifications.find(connection, tenant, asked.notification_id)
            assert found is not None, "the row of an attempt is written before it is sent"
            assert stored is not None, "an attempt has its alert"
            secret = None
            if asked.channel is Channel.WEBHOOK:
                contact_id = stored.alert.delivery(asked.delivery).contact_id
                contact = await people.find_contact(connection, tenant, contact_id)
                secret = None if contact is None else contact.secret
        return found[0], found[1], stored.alert.over, secret

    async def _hand_over(self, entry: Entry, secret: bytes | None) -> Handed:
        assert entry.attempt_id is not None, "it was begun"
        given: dict[str, Any] = {"attempt_id": entry.attempt_id}
        to, text = entry.address or "", entry.body or ""
        match entry.channel:
            case Channel.EMAIL:
                mail = Mail(**given, to=to, subject=entry.subject or "", text=text, html=entry.html or "")
                return await self._senders.mail.send(mail)
            case Channel.SMS:
                return await self._senders.sms.send(Sms(**given, to=to, text=text, useful_seconds=USEFUL_SECONDS))
            case _:
                if secret is None:
                    return Rejected("contact_removed", "the contact is there no more")
                message_id = f"msg_{entry.notification_id.hex}_{entry.delivery}"
                callback = Callback(**given, message_id=message_id, url=to, secret=secret, body=text.encode())
                return await self._senders.callback.send(callback)
