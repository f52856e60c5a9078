"""Contacts: ways to a user, used once the code that was sent there came back. One commit each."""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.alerts.changes import leave_change
from api.alerts.models import CodeInput, ContactInput, ContactView, NewContactView, contact_view
from api.deps import Call, caller, poster, router
from api.fields import Line
from api.idempotency import Answer, Attempt, Configuration, Operation, once
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db.alerts import notifications, people
from db.alerts.people import StoredContact
from db.ids import new_id
from db.outbox import ALERTS_TOPIC, OutboxEvent
from domain.alerts.links import KEY_BYTES
from domain.alerts.model import POLICIES, Alert, AlertType, Channel, Contact, Severity
from domain.errors import Refusal
from domain.identity import Scope
from domain.ids import alert_workflow_id
from domain.webhooks.urls import target_of
from kit.addresses import mail_address, telephone_number
from kit.clock import now

CODE_VALID = timedelta(minutes=15)
GUESSES_MAX = 5

routes = router("/alerts/contacts", "alerts")
Writer = Annotated[Call, Depends(poster(Scope.ALERTS_WRITE))]
_READ: Mapping[Channel, Callable[[str], str | None]] = {
    Channel.EMAIL: mail_address,
    Channel.SMS: telephone_number,
}


@routes.post("", status_code=201, response_model=NewContactView, responses=documented(409, 413, 415))
async def add_contact(body: ContactInput, call: Writer) -> Response:
    """Add a way to a user, and send a code there. It is used once the code came back."""
    user = call.own_user(body.user_id, field="user_id")
    assert user is not None, "the body names one"
    return await _done(call, _Add(call, user, body), secret=True)


@routes.get("")
async def list_contacts(
    call: Annotated[Call, Depends(caller(Scope.ALERTS_READ))],
    user_id: Annotated[Line | None, Query()] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[ContactView]:
    """The contacts, the newest first. A key that is bound to a user sees its own."""
    user = call.own_user(user_id, field="user_id")
    pager = Pager("alert contacts", {"user": user})
    async with call.transaction() as connection:
        rows = await people.list_contacts(
            connection, call.principal.tenant_id, user=user, before=pager.before(cursor), limit=limit + 1
        )
    rows, next_cursor = pager.page(rows, limit, "contact_id")
    return Page(items=[contact_view(row) for row in rows], next_cursor=next_cursor)


@routes.get("/{contact_id}", responses=documented(404))
async def read_contact(contact_id: UUID, call: Annotated[Call, Depends(caller(Scope.ALERTS_READ))]) -> ContactView:
    """One contact."""
    async with call.transaction() as connection:
        return contact_view(await _visible(call, connection, contact_id))


@routes.post("/{contact_id}/verify", response_model=ContactView, responses=documented(404, 409, 413, 415))
async def verify_contact(contact_id: UUID, body: CodeInput, call: Writer) -> Response:
    """Bring the code back that was sent. After five guesses, or a quarter of an hour, another one has to be sent."""
    await _guess(call, contact_id, body.code)
    return await _done(call, _Verify(call, contact_id, body.code))


@routes.post("/{contact_id}/code", response_model=ContactView, responses=documented(404, 409, 413, 415))
async def send_code(contact_id: UUID, call: Writer) -> Response:
    """Send another code; the one before it is of no use any more."""
    return await _done(call, _SendCode(call, contact_id))


@routes.delete("/{contact_id}", status_code=204, responses=documented(404))
async def remove_contact(contact_id: UUID, call: Annotated[Call, Depends(caller(Scope.ALERTS_WRITE))]) -> Response:
    """Use a contact no more."""
    async with call.transaction() as connection:
        found = await _visible(call, connection, contact_id, lock=True)
        await people.change_contact(connection, call.principal.tenant_id, contact_id, removed_at=now())
        await _leave(call, connection, found.contact, "contact.removed", [])
    call.services.doorbell.ring()
    return Response(status_code=204)


class _Add(Configuration):
    """A new contact, with the alert that carries its code."""

    def __init__(self, call: Call, user: str, body: ContactInput) -> None:
        self._call = call
        self._user = user
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here."""
        del attempt
        call, channel = self._call, self._body.channel
        address = self._address()
        contact = Contact(new_id(), self._user, channel, address)
        secret = os.urandom(KEY_BYTES) if channel is Channel.WEBHOOK else None
        code = _fresh_code()
        made = await people.add_contact(
            connection,
            call.principal.tenant_id,
            contact,
            secret=secret,
            code_hash=_hash(contact.contact_id, code),
            code_expires_at=now() + CODE_VALID,
        )
        if not made:
            raise Refusal("contact_taken", "the user has this contact already", field="address")
        await _leave(call, connection, contact, "contact.added", [await _send(call, connection, contact, code)])
        found = await people.find_contact(connection, call.principal.tenant_id, contact.contact_id)
        assert found is not None, "it was just written"
        shown = None if secret is None else f"whsec_{base64.b64encode(secret).decode()}"
        view = NewContactView(**contact_view(found).model_dump(), secret=shown)
        return Answer(201, view, {"Location": f"/api/v1/alerts/contacts/{contact.contact_id}"})

    def _address(self) -> str:
        """The address as it is kept. Where a URL may lead is the door's to say, as it is for endpoints of webhooks."""
        channel, said = self._body.channel, self._body.address
        if channel is Channel.WEBHOOK:
            return target_of(said.strip(), self._call.services.reach, field="address").url
        address = _READ[channel](said)
        if address is None:
            raise Refusal("contact_address_invalid", f"this is no address for {channel}", field="address")
        return address


class _Verify(Configuration):
    """A code that came back, and was found right."""

    def __init__(self, call: Call, contact_id: UUID, code: str) -> None:
        self._call = call
        self._contact_id = contact_id
        self._code = code

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Verify it; one that is verified stays so."""
        del attempt
        call = self._call
        found = await _visible(call, connection, self._contact_id, lock=True)
        if found.verified_at is None:
            if not _matches(found, self._code):
                raise Refusal("contact_code_wrong", "this is not the code that was sent", field="code")
            await people.change_contact(connection, call.principal.tenant_id, self._contact_id, verified_at=now())
            await _leave(call, connection, found.contact, "contact.verified", [])
        return Answer(200, contact_view(await _visible(call, connection, self._contact_id)))


class _SendCode(Configuration):
    """Another code."""

    def __init__(self, call: Call, contact_id: UUID) -> None:
        self._call = call
        self._contact_id = contact_id

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here."""
        del attempt
        call = self._call
        found = await _visible(call, connection, self._contact_id, lock=True)
        if found.verified_at is not None:
            raise Refusal("contact_verified", "the contact is verified already")
        code = _fresh_code()
        await people.change_contact(
            connection,
            call.principal.tenant_id,
            self._contact_id,
            code_hash=_hash(self._contact_id, code),
            code_expires_at=now() + CODE_VALID,
            code_guesses=0,
        )
        event = await _send(call, connection, found.contact, code)
        await _leave(call, connection, found.contact, "contact.code_sent", [event])
        return Answer(200, contact_view(found))


async def _done(call: Call, operation: Operation, *, secret: bool = False) -> Response:
    """The answer, and the relay woken behind its commit."""
    response = await once(call, operation, secret=secret)
    call.services.doorbell.ring()
    return response


async def _guess(call: Call, contact_id: UUID, code: str) -> None:
    """Count a guess in a commit of its own, so that a wrong one, which is refused, counts too."""
    async with call.transaction() as connection:
        found = await _visible(call, connection, contact_id, lock=True)
        if found.verified_at is not None:
            return
        expired = found.code_expires_at is None or found.code_expires_at <= now()
        if expired or found.code_guesses >= GUESSES_MAX:
            raise Refusal("contact_code_expired", "the code is too old or was guessed at too often; have another sent")
        if not _matches(found, code):
            await people.change_contact(
                connection, call.principal.tenant_id, contact_id, code_guesses=found.code_guesses + 1
            )


async def _send(call: Call, connection: AsyncConnection, contact: Contact, code: str) -> OutboxEvent:
    """Write the alert that carries a code; the event that it leaves starts its workflow."""
    at = now()
    alert = Alert(
        tenant_id=call.principal.tenant_id,
        notification_id=new_id(),
        user_id=contact.user_id,
        alert_type=AlertType.CONTACT_CODE,
        severity=Severity.LOW,
        policy=POLICIES[AlertType.CONTACT_CODE],
        facts={"code": code, "contact_id": str(contact.contact_id)},
        raised_at=at,
    )
    await notifications.add(connection, [(alert, os.urandom(KEY_BYTES))])
    data = {
        "notification_id": str(alert.notification_id),
        "user_id": alert.user_id,
        "alert_type": alert.alert_type,
        "severity": alert.severity,
        "status": "PENDING",
    }
    return OutboxEvent(new_id(), ALERTS_TOPIC, "alert.raised", alert_workflow_id(alert.notification_id), at, data)


async def _leave(
    call: Call, connection: AsyncConnection, contact: Contact, action: str, events: list[OutboxEvent]
) -> None:
    """Audit and events of a change of a contact; neither names the address."""
    facts = {"contact_id": str(contact.contact_id), "user_id": contact.user_id, "channel": contact.channel}
    await leave_change(call, connection, f"contact:{contact.contact_id}", action, facts, beside=events)


async def _visible(call: Call, connection: AsyncConnection, contact_id: UUID, *, lock: bool = False) -> StoredContact:
    found = await people.find_contact(connection, call.principal.tenant_id, contact_id, lock=lock)
    bound = call.principal.user_id
    if found is None or found.removed_at is not None or (bound is not None and found.contact.user_id != bound):
        raise Refusal("contact_unknown", "there is no such contact")
    return found


def _fresh_code() -> str:
    return f"{secrets.randbelow(1_000_000):06d}"


def _hash(contact_id: UUID, code: str) -> bytes:
    return sha256(contact_id.bytes + code.encode()).digest()


def _matches(found: StoredContact, code: str) -> bool:
    return found.code_hash is not None and hmac.compare_digest(found.code_hash, _hash(found.contact_id, code))
