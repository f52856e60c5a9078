"""The real SDKs against the doubles, with the vendors' own descriptions judging both sides."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from activities.ports import Handed, Mail, NotTaken, Rejected, Sms, Taken, Unsure
from activities.vendors.sendgrid import SendGridMail
from activities.vendors.twilio import TwilioSms
from db.ids import new_id
from kit.sending import SendGridAccount, TwilioAccount
from tests.vendors.faults import Fault
from tests.vendors.mailer import API_KEY, SendGrid
from tests.vendors.prism import judged
from tests.vendors.server import vendor
from tests.vendors.texter import ACCOUNT, NUMBER, TOKEN, Twilio

SENDGRID, TWILIO = "tsg_mail_v3.json", "twilio_api_v2010.json"
SERVICE = "MG" + "0123456789abcdef" * 2
TO = "+491701234567"
TEXT = "Holdfast: add 1,200.50 USDC by 14:05 UTC – reply ACK 4711 · https://x.example/a/abc"


@dataclass
class Mailing:
    double: SendGrid
    judge: str
    sender: SendGridMail


@dataclass
class Texting:
    double: Twilio
    judge: str
    sender: TwilioSms


@pytest.fixture(scope="module")
async def mailing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mailing]:
    log = tmp_path_factory.mktemp("judge") / "sendgrid.log"
    async with vendor() as served, judged(SENDGRID, served.url, log) as judge:
        sender = SendGridMail(
            SendGridAccount(API_KEY, "Holdfast <alerts@example.com>", reply_to="desk@example.com", url=judge)
        )
        yield Mailing(SendGrid(served), judge, sender)
        await sender.close()


@pytest.fixture(scope="module")
async def texting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Texting]:
    log = tmp_path_factory.mktemp("judge") / "twilio.log"
    async with vendor() as served, judged(TWILIO, served.url, log) as judge:
        sender = _texts(judge)
        yield Texting(Twilio(served), judge, sender)
        await sender.close()


def _texts(url: str, sender: str = NUMBER) -> TwilioSms:
    report_to = "https://desk.example.com/api/v1/alerts/receipts/twilio"
    account = TwilioAccount(ACCOUNT, ACCOUNT, TOKEN, sender, report_to=report_to, url=url, settle_seconds=0)
    return TwilioSms(account)


def a_mail() -> Mail:
    return Mail(new_id(), "max.muster@example.com", "Nachschuss nötig – 3 Stunden", "Füge hinzu", "<p>Füge hinzu</p>")


def an_sms(text: str = TEXT) -> Sms:
    return Sms(new_id(), TO, text, 900)


async def test_a_mail_is_as_sendgrid_describes_it(mailing: Mailing) -> None:
    mail = a_mail()
    handed = await mailing.sender.send(mail)
    queued = mailing.double.mails[-1]
    assert handed == Taken(queued.message_id, "HTTP 202")
    assert queued.custom_args == {"holdfast_attempt": str(mail.attempt_id)}
    assert (queued.content["subject"], queued.text("text/html")) == (mail.subject, mail.html)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, Rejected),
        (403, Rejected),
        (404, Rejected),
        (405, Rejected),
        (413, Rejected),
        (500, Unsure),
    ],
)
async def test_each_answer_that_sendgrid_describes_has_its_end(
    mailing: Mailing, status: int, kind: type[Handed]
) -> None:
    body = {"errors": [{"message": "as described", "field": "null"}], "id": "1"}
    mailing.double.faults.add(Fault(status, body))
    handed = await mailing.sender.send(a_mail())
    assert isinstance(handed, kind)
    assert handed.detail == f"HTTP {status}: as described"


async def test_a_wrong_key_is_refused_through_the_judge(mailing: Mailing) -> None:
    sender = SendGridMail(SendGridAccount("SG.another.key", "alerts@example.com", url=mailing.judge))
    handed = await sender.send(a_mail())
    await sender.close()
    assert isinstance(handed, Rejected)
    assert handed.code == "401"


async def test_a_rate_limit_that_is_not_described_passes(mailing: Mailing) -> None:
    mailing.double.faults.add(Fault(429, {"errors": []}, {"Retry-After": "5"}))
    assert await mailing.sender.send(a_mail()) == NotTaken("HTTP 429", 5.0)


async def test_the_judge_stops_a_request_that_is_not_as_described(mailing: Mailing) -> None:
    asked = len(mailing.double.vendor.asked)
    without_sender: dict[str, Any] = {
        "personalizations": [{"to": [{"email": "a@example.com"}]}],
        "subject": "s",
        "content": [{"type": "text/plain", "value": "v"}],
    }
    with_odd_arguments = without_sender | {"from": {"email": "b@example.com"}, "custom_args": {"a": "b"}}
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {API_KEY}"}) as client:
        for body in (without_sender, with_odd_arguments):
            answer = await client.post(f"{mailing.judge}/v3/mail/send", json=body)
            assert 400 <= answer.status_code < 500
            assert "stoplight.io" in answer.text
    assert len(mailing.double.vendor.asked) == asked


async def test_the_judge_stops_an_answer_that_is_not_as_described(mailing: Mailing) -> None:
    mailing.double.faults.add(Fault(207, acts=True))
    handed = await mailing.sender.send(a_mail())
    assert isinstance(handed, Unsure)
    assert "HTTP 500" in handed.detail


async def test_a_message_is_as_twilio_describes_it(texting: Texting) -> None:
    sms = an_sms()
    handed = await texting.sender.send(sms)
    message = texting.double.messages[-1]
    assert handed == Taken(message.sid, "queued")
    assert (message.text, message.form["ValidityPeriod"]) == (TEXT, "900")
    assert message.form["StatusCallback"].endswith(f"?attempt={sms.attempt_id}")


async def test_a_messaging_service_is_as_twilio_describes_it(texting: Texting) -> None:
    sender = _texts(texting.judge, SERVICE)
    assert isinstance(await sender.send(an_sms()), Taken)
    await sender.close()
    assert texting.double.messages[-1].form["MessagingServiceSid"] == SERVICE


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(400, {"code": 21211, "message": "m", "more_info": "u", "status": 400}), Rejected),
        (Fault(401, {"code": 20003, "message": "m", "more_info": "u", "status": 401}), Rejected),
        (Fault(429, {"code": 20429, "message": "m", "more_info": "u", "status": 429}), NotTaken),
        (Fault(500, {"code": 20500, "message": "m", "more_info": "u", "status": 500}), Unsure),
        (Fault(503, {"code": 20503, "message": "m", "more_info": "u", "status": 503}), Unsure),
    ],
)
async def test_each_answer_of_twilio_has_its_end(texting: Texting, fault: Fault, kind: type[Handed]) -> None:
    texting.double.faults.add(fault)
    assert isinstance(await texting.sender.send(an_sms()), kind)


async def test_the_judge_stops_a_message_that_is_not_as_described(texting: Texting) -> None:
    asked = len(texting.double.vendor.asked)
    address = f"{texting.judge}/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
    async with httpx.AsyncClient(trust_env=False, auth=(ACCOUNT, TOKEN)) as client:
        for form in ({"Body": "without anybody"}, {"To": TO, "Body": "b", "ValidityPeriod": "long"}):
            answer = await client.post(address, data=form)
            assert 400 <= answer.status_code < 500
            assert "stoplight.io" in answer.text
        strange = await client.post(address.replace("AC", "XX"), data={"To": TO, "Body": "b"})
        assert 400 <= strange.status_code < 500
    assert len(texting.double.vendor.asked) == asked


async def test_the_judge_stops_a_resource_that_is_not_as_described(texting: Texting) -> None:
    lost = an_sms("answered wrongly")
    message = texting.double.take({"To": TO, "Body": lost.text})
    texting.double.faults.add(Fault(201, texting.double.resource(message) | {"sid": "no such id"}))
    assert isinstance(await texting.sender.send(lost), Unsure)


async def test_what_was_lost_is_looked_up_as_twilio_describes_it(
    texting: Texting, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its list is the one thing that its own description gets wrong: it calls parts of addresses whole ones."""
    double, since, sms = texting.double, datetime.now(UTC), an_sms("lost and found")
    for number in range(120):
        double.take({"To": TO, "Body": f"number {number}"})
    log = tmp_path_factory.mktemp("judge") / "lists.log"
    async with judged(TWILIO, double.url, log, errors=False) as judge:
        sender = _texts(judge)
        double.faults.add(Fault(500, acts=True))
        assert isinstance(await sender.send(sms), Unsure)
        for number in range(120):
            double.take({"To": TO, "Body": f"again {number}"})
        found = next(message for message in double.messages if message.text == sms.text)
        assert await sender.find(sms, since) == Taken(found.sid, "queued")
        assert await sender.find(an_sms("never sent"), since) == NotTaken("looked up: it is not there")
        await sender.close()
        async with httpx.AsyncClient(trust_env=False, auth=(ACCOUNT, TOKEN)) as client:
            address = f"{judge}/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
            answer = await client.get(address, params={"To": TO, "PageSize": "100"})
    violations = json.loads(answer.headers.get("sl-violations", "[]"))
    wrong = {tuple(each["location"]) for each in violations if each["severity"] == "Error"}
    assert wrong <= {
        ("response", "body", name) for name in ("uri", "first_page_uri", "next_page_uri", "previous_page_uri")
    }


async def test_the_double_is_asked_for_one_message_as_described(texting: Texting) -> None:
    message = texting.double.take({"To": TO, "From": NUMBER, "Body": "one"})
    async with httpx.AsyncClient(trust_env=False, auth=(ACCOUNT, TOKEN)) as client:
        answer = await client.get(f"{texting.judge}/2010-04-01/Accounts/{ACCOUNT}/Messages/{message.sid}.json")
    assert answer.status_code == 200
    assert answer.json()["sid"] == message.sid
