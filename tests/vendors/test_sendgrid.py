"""Mail through SendGrid's real SDK: what each end of a call means, and what nothing may show."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import pytest

from activities.ports import Handed, Mail, NotTaken, Rejected, Taken, Unsure
from activities.vendors.sendgrid import SendGridMail
from db.ids import new_id
from kit.receipts import sendgrid_receipts, verify_sendgrid
from kit.sending import SendGridAccount
from tests.polling import eventually
from tests.vendors.faults import Fault
from tests.vendors.mailer import API_KEY, SendGrid
from tests.vendors.server import Vendor, closed_door
from tools.local.process import free_port

TO = "max.muster@example.com"


@pytest.fixture
def sendgrid(served: Vendor) -> SendGrid:
    return SendGrid(served)


@pytest.fixture
async def sender(sendgrid: SendGrid) -> AsyncIterator[SendGridMail]:
    made = a_sender(API_KEY, "Holdfast <alerts@example.com>", url=sendgrid.url, timeout_seconds=2.0)
    yield made
    await made.close()


def a_sender(api_key: str, sender: str, **how: Any) -> SendGridMail:
    return SendGridMail(SendGridAccount(api_key, sender, **how))


def a_mail(attempt_id: UUID | None = None, to: str = TO) -> Mail:
    html = "<p>Füge Sicherheiten hinzu: <a href='https://x.example/a?b=c'>hier</a></p>"
    return Mail(attempt_id or new_id(), to, "Nachschuss nötig – 3 Stunden", "Füge Sicherheiten hinzu", html)


async def test_a_mail_is_taken_as_it_is_and_its_receipts_come_back(sendgrid: SendGrid, sender: SendGridMail) -> None:
    mail = a_mail()
    handed = await sender.send(mail)
    (queued,) = sendgrid.mails
    assert handed == Taken(queued.message_id, "HTTP 202")
    assert queued.to == TO
    assert (queued.content["subject"], queued.text(), queued.text("text/html")) == (mail.subject, mail.text, mail.html)
    assert queued.content["from"] == {"email": "alerts@example.com", "name": "Holdfast"}
    assert queued.content["tracking_settings"]["click_tracking"] == {"enable": False, "enable_text": False}
    body, headers = sendgrid.signed([sendgrid.event(queued, "delivered"), sendgrid.bounce(queued)])
    signature, timestamp = (headers[f"X-Twilio-Email-Event-Webhook-{name}"] for name in ("Signature", "Timestamp"))
    assert verify_sendgrid(sendgrid.public_key, signature, timestamp, body)
    delivered, bounced = sendgrid_receipts(body)
    assert delivered.attempt_id == bounced.attempt_id == mail.attempt_id
    assert delivered.reference == bounced.reference == queued.message_id
    assert (delivered.status, bounced.status, bounced.said) == ("delivered", "undelivered", "bounced")
    assert TO not in bounced.detail


async def test_answers_go_where_they_are_wanted(sendgrid: SendGrid) -> None:
    sender = a_sender(API_KEY, "alerts@example.com", reply_to="Desk <desk@example.com>", url=sendgrid.url)
    assert isinstance(await sender.send(a_mail()), Taken)
    await sender.close()
    (queued,) = sendgrid.mails
    assert queued.content["from"] == {"email": "alerts@example.com"}
    assert queued.content["reply_to"] == {"email": "desk@example.com", "name": "Desk"}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(429), NotTaken("HTTP 429")),
        (Fault(429, headers={"Retry-After": "17"}), NotTaken("HTTP 429", 17.0)),
        (Fault(429, headers={"Retry-After": "soon"}), NotTaken("HTTP 429")),
        (Fault(429, headers={"Retry-After": "999999"}), NotTaken("HTTP 429", 3600.0)),
        (Fault(500), Unsure("HTTP 500")),
        (Fault(502, "<html>Bad gateway"), Unsure("HTTP 502")),
        (Fault(503), Unsure("HTTP 503")),
        (Fault(504), Unsure("HTTP 504")),
        (Fault(408), Unsure("HTTP 408")),
        (
            Fault(413, {"errors": [{"message": "Too large", "field": "content"}]}),
            Rejected("413", "HTTP 413: content Too large"),
        ),
        (Fault(400, {"errors": [{"message": None}, {"message": 7, "field": None}]}), Rejected("400", "HTTP 400: ; 7")),
        (Fault(400, {"errors": "none"}), Rejected("400", "HTTP 400")),
        (Fault(400, "[" * 100_000), Rejected("400", "HTTP 400")),
        (Fault(403, b"\xff"), Rejected("403", "HTTP 403")),
        (Fault(302, headers={"Location": "/v3/elsewhere"}), Rejected("302", "HTTP 302")),
        (Fault(reset=True, acts=True), Unsure("no answer: ConnectionResetError")),
    ],
)
async def test_what_it_answers_says_what_became_of_a_mail(
    sendgrid: SendGrid, sender: SendGridMail, fault: Fault, expected: Handed
) -> None:
    sendgrid.faults.add(fault)
    assert await sender.send(a_mail()) == expected
    # Nobody tried a second time, and nobody followed.
    assert len(sendgrid.vendor.asked) == 1
    assert isinstance(await sender.send(a_mail()), Taken)


async def test_a_rate_limit_says_until_when(sendgrid: SendGrid, sender: SendGridMail) -> None:
    reset = datetime.now(UTC) + timedelta(seconds=30)
    sendgrid.faults.add(
        Fault(429, headers={"X-RateLimit-Reset": str(int(reset.timestamp()))}),
        Fault(429, headers={"Retry-After": format_datetime(reset, usegmt=True)}),
        Fault(429, headers={"Retry-After": format_datetime(reset - timedelta(days=1), usegmt=True)}),
    )
    for least in (27, 27, 0):
        handed = await sender.send(a_mail())
        assert isinstance(handed, NotTaken)
        assert handed.retry_after_seconds is not None
        assert least <= handed.retry_after_seconds <= (30 if least else 0)


async def test_an_answer_that_does_not_come_leaves_it_open(sendgrid: SendGrid) -> None:
    sender = a_sender(API_KEY, "alerts@example.com", url=sendgrid.url, timeout_seconds=0.5)
    sendgrid.faults.add(Fault(silent=True, acts=True), Fault(202, b"x", hang=True, acts=True))
    for _ in range(2):
        began = time.monotonic()
        assert isinstance(await sender.send(a_mail()), Unsure)
        assert time.monotonic() - began < 2.0
    assert len(sendgrid.mails) == 2
    await sender.close()


async def test_where_nobody_listens_nothing_was_taken() -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "http://nowhere.invalid", f"https://127.0.0.1:{free_port()}"):
        sender = a_sender(API_KEY, "alerts@example.com", url=url, timeout_seconds=5.0)
        handed = await sender.send(a_mail())
        assert isinstance(handed, NotTaken)
        assert "127.0.0.1" not in handed.detail
        await sender.close()


async def test_where_nobody_opens_nothing_was_taken(sendgrid: SendGrid) -> None:
    """A host that drops packets: the time for connecting is over, and nothing was said."""
    with closed_door() as url:
        sender = a_sender(API_KEY, "alerts@example.com", url=url, timeout_seconds=1.0)
        assert await sender.send(a_mail()) == NotTaken("no connection: TimeoutError")
        await sender.close()


async def test_a_server_that_does_not_speak_tls_was_told_nothing(sendgrid: SendGrid) -> None:
    url = sendgrid.url.replace("http://", "https://")
    sender = a_sender(API_KEY, "alerts@example.com", url=url, timeout_seconds=1.0)
    assert isinstance(await sender.send(a_mail()), NotTaken)
    assert not sendgrid.vendor.asked
    await sender.close()


async def test_a_sender_can_be_used_again_after_it_was_closed(sendgrid: SendGrid, sender: SendGridMail) -> None:
    await sender.send(a_mail())
    await sender.close()
    assert isinstance(await sender.send(a_mail()), Taken)


async def test_many_at_once_get_their_own_answers(sendgrid: SendGrid, sender: SendGridMail) -> None:
    mails = [a_mail(to=f"user{number}@example.com") for number in range(60)]
    handed = await asyncio.gather(*(sender.send(mail) for mail in mails))
    by_reference = {queued.message_id: queued for queued in sendgrid.mails}
    assert len(by_reference) == 60
    for mail, one in zip(mails, handed, strict=True):
        assert isinstance(one, Taken)
        queued = by_reference[one.reference]
        assert (queued.to, queued.custom_args) == (mail.to, {"holdfast_attempt": str(mail.attempt_id)})


async def test_nothing_shows_the_key_or_the_address(
    sendgrid: SendGrid, sender: SendGridMail, caplog: pytest.LogCaptureFixture
) -> None:
    echo = {"errors": [{"message": f"the key {API_KEY} may not write to {TO}, see https://x.example/{API_KEY}"}]}
    sendgrid.faults.add(Fault(401, echo), Fault(500, echo), Fault(reset=True), Fault(429, echo))
    with caplog.at_level(logging.DEBUG):
        handed = [await sender.send(a_mail()) for _ in range(5)]
    assert str(handed[0].detail) == "HTTP 401: the key (key) may not write to (address), see (address)"
    everything = caplog.text + repr(handed) + repr(sender) + repr([record.__dict__ for record in caplog.records])
    assert "SG." not in everything
    assert TO not in everything


async def test_a_key_that_cannot_be_one_is_not_shown_either() -> None:
    for key in ("SG.secret\nkey", "SG. secret", "SG.sécret"):
        with pytest.raises(ValueError, match="no SendGrid API key") as caught:
            a_sender(key, "alerts@example.com")
        assert key not in str(caught.value)


async def test_an_interrupted_call_leaves_nothing_behind(sendgrid: SendGrid, sender: SendGridMail) -> None:
    sendgrid.faults.add(Fault(silent=True))
    task = asyncio.create_task(sender.send(a_mail()))

    async def asked() -> bool:
        return bool(sendgrid.vendor.asked)

    await eventually(asked)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await sender.send(a_mail()), Taken)
