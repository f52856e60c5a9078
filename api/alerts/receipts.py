"""What vendors say of messages, and answers to text messages. Their signatures are checked here, without their SDKs;
what is taken is durable before it is answered, and a repeat changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, cast
from urllib.parse import parse_qsl
from uuid import uuid5

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from api.deps import Services
from api.problems import documented
from db.alerts import attempts, notifications, people
from db.alerts.attempts import About, Entry, Phase
from db.audit import AuditRecord, Origin
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from db.outbox import ALERTS_TOPIC, OutboxEvent
from db.step import Left, leave
from domain.alerts import climb, links
from domain.alerts.delivery import Word
from domain.alerts.model import Status
from domain.errors import Refusal
from domain.ids import alert_workflow_id
from kit import receipts as vendors
from kit.clock import now
from kit.receipts import Receipt, ReceiptsUnreadable
from workflows.alerts import AcknowledgeAlert, OriginMessage

routes = APIRouter(prefix="/api/v1/alerts/receipts", tags=["alerts"], responses=documented())

_WORDS: Mapping[str, Word] = {
    "accepted": Word.SENT,
    "sent": Word.SENT,
    "delivered": Word.DELIVERED,
    "undelivered": Word.FAILED,
}
_TWIML = "<?xml version='1.0' encoding='UTF-8'?><Response>{}</Response>"
_log = logging.getLogger(__name__)


@routes.post("/sendgrid", status_code=204, response_class=Response)
async def take_sendgrid_events(
    request: Request,
    signature: Annotated[str, Header(alias=vendors.SENDGRID_SIGNATURE_HEADER, max_length=500)] = "",
    timestamp: Annotated[str, Header(alias=vendors.SENDGRID_TIMESTAMP_HEADER, max_length=100)] = "",
) -> Response:
    """SendGrid's signed events: the signature is over the timestamp and the bytes of the body."""
    services = cast(Services, request.app.state.services)
    door, body = services.receipts, await request.body()
    if door.sendgrid_key is None or not vendors.verify_sendgrid(door.sendgrid_key, signature, timestamp, body):
        raise door.refuse("sendgrid")
    try:
        found = vendors.sendgrid_receipts(body)
    except ReceiptsUnreadable as fault:
        raise Refusal("receipt_unreadable", str(fault), field="body") from None
    await _take(services, found, str(request.state.request_id))
    return Response(status_code=204)


@routes.post("/twilio", status_code=204, response_class=Response)
async def take_twilio_status(
    request: Request,
    signature: Annotated[str, Header(alias=vendors.TWILIO_SIGNATURE_HEADER, max_length=500)] = "",
    settings: Annotated[str, Header(alias=vendors.TWILIO_SETTINGS_HEADER, max_length=500)] = "",
) -> Response:
    """Twilio's status of a message: the signature is over the address and the form."""
    services = cast(Services, request.app.state.services)
    form = await _signed_form(services, request, signature, settings)
    try:
        found = vendors.twilio_receipt(form, dict(parse_qsl(request.url.query)))
    except ReceiptsUnreadable as fault:
        raise Refusal("receipt_unreadable", str(fault), field="body") from None
    await _take(services, [] if found is None else [found], str(request.state.request_id))
    return Response(status_code=204)


@routes.post(
    "/twilio/replies", response_class=Response, responses={200: {"content": {"text/xml": {}}, "description": "TwiML"}}
)
async def take_twilio_reply(
    request: Request,
    signature: Annotated[str, Header(alias=vendors.TWILIO_SIGNATURE_HEADER, max_length=500)] = "",
    settings: Annotated[str, Header(alias=vendors.TWILIO_SETTINGS_HEADER, max_length=500)] = "",
) -> Response:
    """An answer to a text message: `OK` takes note of every open alert sent to this number, `OK 7F3K` of one."""
    services = cast(Services, request.app.state.services)
    form = await _signed_form(services, request, signature, settings)
    try:
        reply = vendors.twilio_reply(form)
    except ReceiptsUnreadable as fault:
        raise Refusal("receipt_unreadable", str(fault), field="body") from None
    takes_note, code = links.read_reply(reply.text)
    noted = 0
    if takes_note:
        noted = await _acknowledge(services, reply.sender, code, reply.reference, str(request.state.request_id))
    services.receipts.metrics.taken.labels("twilio", "reply" if noted else "reply_without_alert").inc()
    said = f"<Message>Acknowledged: {noted}.</Message>" if noted else ""
    return Response(_TWIML.format(said), media_type="text/xml")


async def _signed_form(services: Services, request: Request, signature: str, settings: str) -> Mapping[str, str]:
    door = services.receipts
    query = f"?{request.url.query}" if request.url.query else ""
    url = f"{door.public_url.rstrip('/')}{request.url.path}{query}"
    try:
        pairs = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=500)
    except ValueError:
        raise door.refuse("twilio") from None
    token = door.twilio_token
    if token is None or not vendors.verify_twilio(token, signature, url, pairs, settings=settings):
        raise door.refuse("twilio")
    return dict(pairs)


async def _take(services: Services, found: Sequence[Receipt], request_id: str) -> None:
    """Take each receipt in a commit of its own: the vendor repeats all of them when one could not be taken."""
    for receipt in found:
        async with transaction(services.engine) as connection:
            about = await attempts.find_about(connection, receipt.attempt_id, receipt.reference)
        became = "unknown" if about is None else await _record(services, about, receipt, request_id)
        services.receipts.metrics.taken.labels(receipt.vendor, became).inc()
    if found:
        services.doorbell.ring()


async def _record(services: Services, about: About, receipt: Receipt, request_id: str) -> str:
    """What became of it: new, repeated, or of no effect because more is known already."""
    at = receipt.at or now()
    tenant = about.tenant_id
    async with tenant_transaction(services.engine, tenant) as connection:
        stored = await notifications.lock(connection, tenant, about.notification_id)
        begun = await attempts.begun(connection, tenant, about.attempt_id, fresh_seconds=0)
        assert stored is not None, "an attempt has its alert"
        assert begun is not None, "a receipt is about an attempt that began"
        entry = Entry(
            new_id(),
            about.notification_id,
            Phase.RECEIPT,
            begun[0].delivery,
            at,
            attempt_id=about.attempt_id,
            channel=begun[0].channel,
            vendor=receipt.vendor,
            address=begun[0].address,
            outcome=receipt.said,
            reference=receipt.reference,
            code=receipt.code or None,
            detail=receipt.detail or None,
            provider_event=f"{receipt.vendor}:{receipt.event_id}",
        )
        if not await attempts.append(connection, tenant, [entry]):
            return "repeated"
        after = climb.receive(
            stored.alert,
            begun[0].delivery,
            about.attempt_id,
            _WORDS[receipt.status],
            max(at, stored.alert.raised_at),
            reference=receipt.reference,
            code=entry.code,
            detail=entry.detail,
        )
        if after is not stored.alert:
            # Its workflow looks at it when the event arrives; the watch would, if that were lost.
            await notifications.save(connection, [after], next_at=now())
        facts = {
            "notification_id": str(about.notification_id),
            "user_id": after.user_id,
            "alert_type": after.alert_type,
            "severity": after.severity,
            "status": climb.status(after),
            "delivery": begun[0].delivery,
            "channel": begun[0].channel,
            "vendor": receipt.vendor,
            "said": receipt.said,
        }
        subject = alert_workflow_id(about.notification_id)
        types = [] if after is stored.alert else ["alert.receipt"]
        # That it failed is said once no other way is left.
        if climb.status(after) not in (stored.status, Status.FAILED, Status.PENDING):
            types.append(f"alert.{climb.status(after).lower()}")
        events = [OutboxEvent(new_id(), ALERTS_TOPIC, each, subject, now(), facts) for each in types]
        record = AuditRecord(subject, "alert.receipt", at, Origin(request_id=request_id), facts)
        await leave(connection, tenant, [Left(f"{subject}:receipt:{entry.entry_id}", {}, record, events)])
        return "new" if after is not stored.alert else "late"


async def _acknowledge(services: Services, sender: str, code: str | None, reference: str, request_id: str) -> int:
    """Take note of the open alerts that were sent to a number; how many."""
    async with transaction(services.engine) as connection:
        contacts = await people.of_number(connection, sender)
    noted = 0
    for tenant, contact_id in contacts:
        async with tenant_transaction(services.engine, tenant) as connection:
            contact = await people.find_contact(connection, tenant, contact_id)
            open_ = await notifications.sent_to(connection, tenant, contact_id)
        assert contact is not None, "it was just found"
        for stored in open_:
            if code is not None and code != links.code(stored.link_key):
                continue
            by = contact.contact.user_id
            command = AcknowledgeAlert(
                command_id=uuid5(stored.notification_id, reference),
                by=by,
                via="sms",
                origin=OriginMessage(user_id=by, request_id=request_id),
            )
            try:
                await services.alerts.acknowledge(tenant, stored.notification_id, command)
                noted += 1
            except Refusal as refusal:
                _log.info("an answer came too late: %s", refusal)
    return noted
