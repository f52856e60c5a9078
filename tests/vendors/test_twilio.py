"""Text messages through Twilio's real SDK: what each end of a call means, the look-up, and what nothing may show."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from activities.ports import Handed, NotTaken, Rejected, Sms, Taken, Unsure
from activities.vendors.twilio import TwilioSms
from db.ids import new_id
from kit.receipts import twilio_receipt, twilio_reply, verify_twilio
from kit.sending import TwilioAccount
from tests.vendors.faults import Fault
from tests.vendors.server import Asked, Reply, Vendor, closed_door, vendor
from tests.vendors.texter import ACCOUNT, NUMBER, TOKEN, Twilio
from tools.local.process import free_port

TO = "+491701234567"
SERVICE = "MG" + "0123456789abcdef" * 2
REPORT_TO = "https://alerts.example.com/api/v1/alerts/receipts/twilio"
TEXT = "Holdfast: add 1,200.50 USDC by 14:05 UTC – reply ACK 4711 · https://x.example/a/abc"


@pytest.fixture
def twilio(served: Vendor) -> Twilio:
    return Twilio(served)


@pytest.fixture
async def sender(twilio: Twilio) -> AsyncIterator[TwilioSms]:
    made = _sender(twilio)
    yield made
    await made.close()


def _sender(twilio: Twilio, **how: Any) -> TwilioSms:
    given = {"report_to": REPORT_TO, "url": twilio.url, "timeout_seconds": 2.0, "settle_seconds": 0.0, **how}
    return TwilioSms(TwilioAccount(ACCOUNT, ACCOUNT, TOKEN, given.pop("sender", NUMBER), **given))


def an_sms(text: str = TEXT, to: str = TO, useful_seconds: int = 900) -> Sms:
    return Sms(new_id(), to, text, useful_seconds)


async def test_a_message_is_taken_as_it_is(twilio: Twilio, sender: TwilioSms) -> None:
    sms = an_sms()
    handed = await sender.send(sms)
    (message,) = twilio.messages
    assert handed == Taken(message.sid, "queued")
    assert message.form == {
        "To": TO,
        "From": NUMBER,
        "Body": TEXT,
        "ValidityPeriod": "900",
        "StatusCallback": f"{REPORT_TO}?attempt={sms.attempt_id}",
    }


async def test_a_messaging_service_may_send_and_reports_may_have_no_address(twilio: Twilio) -> None:
    sender = _sender(twilio, sender=SERVICE, report_to=None)
    await sender.send(an_sms(useful_seconds=10**6))
    await sender.send(an_sms(useful_seconds=0))
    await sender.close()
    assert [message.form["MessagingServiceSid"] for message in twilio.messages] == [SERVICE] * 2
    assert [message.form["ValidityPeriod"] for message in twilio.messages] == ["36000", "1"]
    assert not any({"StatusCallback", "From"} & set(message.form) for message in twilio.messages)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            Fault(429, {"code": 20429, "message": "Too many requests"}),
            NotTaken("HTTP 429, error 20429: Too many requests"),
        ),
        (Fault(429, {"code": 20429, "message": "m"}, {"Retry-After": "3"}), NotTaken("HTTP 429, error 20429: m", 3.0)),
        (Fault(500, {"code": 20500, "message": "Internal"}), Unsure("HTTP 500, error 20500: Internal")),
        (Fault(503), Unsure("HTTP 503, error 503")),
        (Fault(408), Unsure("HTTP 408, error 408")),
        (Fault(502, "<html>Bad gateway: really"), Unsure("HTTP 502, error 502")),
        (
            Fault(400, {"code": 21610, "message": "Attempt to send to unsubscribed recipient"}),
            Rejected("21610", "HTTP 400, error 21610: the recipient asked for no more messages"),
        ),
        (
            Fault(403, {"type": "t", "title": "Forbidden", "status": 403, "code": 20003, "detail": f"by {ACCOUNT}"}),
            Rejected("20003", "HTTP 403, error 20003: by (key)"),
        ),
        (
            Fault(429, {"type": "t", "title": "Slower", "status": 429, "code": 20429}),
            NotTaken("HTTP 429, error 20429: Slower"),
        ),
        (Fault(307, headers={"Location": "/elsewhere"}), Rejected("307", "HTTP 307, error 307")),
        (Fault(201, "no JSON", acts=True), Unsure("an answer that cannot be read")),
        (Fault(201, "[1]", acts=True), Unsure("an answer that cannot be read")),
        (Fault(201, "[" * 100_000, acts=True), Unsure("an answer that cannot be read")),
        (Fault(400, "[" * 100_000), Unsure("an answer that cannot be read")),
        (Fault(201, "{}", acts=True), Unsure("an answer without a message")),
        (Fault(reset=True, acts=True), Unsure("no answer: ConnectionError")),
    ],
)
async def test_what_it_answers_says_what_became_of_a_message(
    twilio: Twilio, sender: TwilioSms, fault: Fault, expected: Handed
) -> None:
    twilio.faults.add(fault)
    assert await sender.send(an_sms()) == expected
    # Nobody tried a second time, and nobody followed.
    assert len(twilio.vendor.asked) == 1
    assert isinstance(await sender.send(an_sms("another")), Taken)


async def test_a_wrong_number_is_refused_in_words(twilio: Twilio, sender: TwilioSms) -> None:
    assert await sender.send(an_sms(to="+1")) == Rejected("21211", "HTTP 400, error 21211: the number is not valid")


async def test_a_message_that_failed_at_once_is_refused(twilio: Twilio, sender: TwilioSms) -> None:
    sent = twilio.take({"To": TO, "Body": TEXT}, status="failed", error_code=30034)
    twilio.faults.add(Fault(201, twilio.resource(sent)))
    expected = Rejected("30034", "failed: the sender is not registered with the carriers (A2P 10DLC)")
    assert await sender.send(an_sms()) == expected


async def test_a_wrong_token_is_refused(twilio: Twilio, sender: TwilioSms) -> None:
    twilio.token = "another"
    handed = await sender.send(an_sms())
    assert handed == Rejected("20003", "HTTP 401, error 20003: Authenticate")


async def test_an_answer_that_does_not_come_leaves_it_open_and_is_looked_up(twilio: Twilio) -> None:
    sender = _sender(twilio, timeout_seconds=0.5)
    for fault in (Fault(silent=True, acts=True), Fault(201, b"x", hang=True, acts=True), Fault(500, acts=True)):
        sms, since = an_sms(f"{fault}"), datetime.now(UTC)
        twilio.faults.add(fault)
        began = time.monotonic()
        assert isinstance(await sender.send(sms), Unsure)
        assert time.monotonic() - began < 2.0
        assert await sender.find(sms, since) == Taken(twilio.messages[-1].sid, "queued")
    lost, since = an_sms("lost"), datetime.now(UTC)
    twilio.faults.add(Fault(500), Fault(silent=True))
    for _ in range(2):
        assert isinstance(await sender.send(lost), Unsure)
    assert await sender.find(lost, since) == NotTaken("looked up: it is not there")
    await sender.close()


async def test_where_nobody_listens_nothing_was_taken() -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "http://nowhere.invalid", f"https://127.0.0.1:{free_port()}"):
        sender = TwilioSms(TwilioAccount(ACCOUNT, ACCOUNT, TOKEN, NUMBER, url=url, timeout_seconds=5.0))
        handed = await sender.send(an_sms())
        assert isinstance(handed, NotTaken)
        assert "127.0.0.1" not in handed.detail
        assert isinstance(await sender.find(an_sms(), datetime.now(UTC)), Unsure)
        await sender.close()


async def test_where_nobody_opens_nothing_was_taken() -> None:
    """A host that drops packets: the time for connecting is over, and nothing was said."""
    with closed_door() as url:
        sender = TwilioSms(TwilioAccount(ACCOUNT, ACCOUNT, TOKEN, NUMBER, url=url, timeout_seconds=1.0))
        assert await sender.send(an_sms()) == NotTaken("no connection: ConnectTimeoutError")
        await sender.close()


async def test_a_look_up_says_how_far_a_message_is(twilio: Twilio, sender: TwilioSms) -> None:
    sms, since = an_sms(), datetime.now(UTC)
    await sender.send(sms)
    (message,) = twilio.messages
    for status, expected in (
        ("sent", Taken(message.sid, "sent")),
        ("delivered", Taken(message.sid, "delivered", delivered=True)),
        ("undelivered", Rejected("30003", "undelivered: the handset could not be reached")),
    ):
        message.status, message.error_code = status, 30003 if status == "undelivered" else None
        assert await sender.find(sms, since) == expected


async def test_only_the_very_message_is_found(twilio: Twilio, sender: TwilioSms) -> None:
    sms, since = an_sms(), datetime.now(UTC)
    absent = NotTaken("looked up: it is not there")
    form = {"To": TO, "From": NUMBER, "Body": TEXT}
    # The same words to another; other words to the same; the same words to the same, earlier; somebody's answer.
    twilio.take({**form, "To": "+491709999999"})
    twilio.take({**form, "Body": "Holdfast: all is well again"})
    earlier = twilio.take(form)
    earlier.created_at -= timedelta(seconds=60)
    twilio.messages.insert(0, twilio.messages.pop())
    twilio.take(form, direction="inbound")
    assert await sender.find(sms, since) == absent
    taken = twilio.take({**form, "Body": f"Sent from your Twilio trial account - {TEXT.replace('–', '-')}"})
    assert await sender.find(sms, since) == Taken(taken.sid, "queued")


async def test_absence_proves_nothing_at_first(twilio: Twilio) -> None:
    sender = _sender(twilio, settle_seconds=30.0)
    sms, began = an_sms(), datetime.now(UTC)
    assert await sender.find(sms, began) == Unsure("looked up: it is not there yet")
    assert await sender.find(sms, began - timedelta(seconds=31)) == NotTaken("looked up: it is not there")
    await sender.close()


@pytest.mark.parametrize("minutes", [-90, 90])
async def test_clocks_that_differ_do_not_lose_a_message(twilio: Twilio, sender: TwilioSms, minutes: int) -> None:
    twilio.ahead = timedelta(minutes=minutes)
    earlier = twilio.take({"To": TO, "Body": TEXT})
    earlier.created_at -= timedelta(seconds=60)
    sms, since = an_sms(), datetime.now(UTC)
    assert await sender.find(sms, since) == NotTaken("looked up: it is not there")
    twilio.faults.add(Fault(500, acts=True))
    await sender.send(sms)
    assert await sender.find(sms, since) == Taken(twilio.messages[-1].sid, "queued")


async def test_a_text_that_is_gone_there_leaves_it_open(twilio: Twilio, sender: TwilioSms) -> None:
    sms, since = an_sms(), datetime.now(UTC)
    await sender.send(sms)
    twilio.messages[0].body = ""
    handed = await sender.find(sms, since)
    assert isinstance(handed, Unsure)


async def test_a_long_list_is_read_to_the_attempt_and_not_for_ever(twilio: Twilio, sender: TwilioSms) -> None:
    since = datetime.now(UTC)
    sms = an_sms("the first")
    await sender.send(sms)
    for number in range(350):
        twilio.take({"To": TO, "Body": f"number {number}"})
    assert await sender.find(sms, since) == Taken(twilio.messages[0].sid, "queued")
    for number in range(350):
        twilio.take({"To": TO, "Body": f"again {number}"})
    handed = await sender.find(sms, since)
    assert handed == Unsure("looked up: too many messages to this number")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(429, {"code": 20429, "message": "Too many requests"}),
        Fault(401, {"code": 20003, "message": "Authenticate"}),
        Fault(200, "no JSON"),
        Fault(200, "[" * 100_000),
        Fault(200, {"messages": [{"sid": "SM1"}], "next_page_uri": None}),
        Fault(200, {"messages": [7], "next_page_uri": None}),
        Fault(200, []),
        Fault(reset=True),
        Fault(silent=True),
    ],
)
async def test_a_look_up_that_fails_proves_nothing(twilio: Twilio, fault: Fault) -> None:
    sender = _sender(twilio, timeout_seconds=0.5)
    twilio.faults.add(fault)
    assert isinstance(await sender.find(an_sms(), datetime.now(UTC) - timedelta(days=1)), Unsure)
    await sender.close()


async def test_many_at_once_get_their_own_answers(twilio: Twilio, sender: TwilioSms) -> None:
    each = [an_sms(f"number {number}") for number in range(60)]
    handed = await asyncio.gather(*(sender.send(sms) for sms in each))
    by_sid = {message.sid: message for message in twilio.messages}
    assert len(by_sid) == 60
    for sms, one in zip(each, handed, strict=True):
        assert isinstance(one, Taken)
        assert by_sid[one.reference].text == sms.text


async def test_the_environment_does_not_move_the_host(
    twilio: Twilio, sender: TwilioSms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_EDGE", "sydney")
    monkeypatch.setenv("TWILIO_REGION", "au1")
    assert isinstance(await sender.send(an_sms()), Taken)


async def test_nothing_shows_a_key_an_account_or_a_number(
    twilio: Twilio, sender: TwilioSms, caplog: pytest.LogCaptureFixture
) -> None:
    echo = {"code": 20003, "message": f"{ACCOUNT} with {TOKEN} may not write to {TO}: see https://x.example/{ACCOUNT}"}
    twilio.faults.add(Fault(401, echo), Fault(500, echo), Fault(reset=True), Fault(429, echo))
    with caplog.at_level(logging.DEBUG):
        handed = [await sender.send(an_sms()) for _ in range(5)]
        handed.append(await sender.find(an_sms(), datetime.now(UTC)))
    assert handed[0].detail == "HTTP 401, error 20003: (key) with (key) may not write to (number): see (address)"
    everything = caplog.text + repr(handed) + repr(sender) + repr([record.__dict__ for record in caplog.records])
    for secret in (TOKEN, ACCOUNT, TO):
        assert secret not in everything


async def test_the_double_signs_as_the_sdk_does(twilio: Twilio) -> None:
    """So that what it signs proves our check, and not only itself."""
    url = "https://alerts.example.com/receipts?attempt=1"
    form = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": "", "From": "ümläut +1"}
    signature = twilio.signature(url, form)
    assert RequestValidator(TOKEN).validate(url, form, signature)
    assert verify_twilio(TOKEN, signature, url, form)


async def test_receipts_come_where_they_were_asked_for(twilio: Twilio) -> None:
    """From the message's creation to a callback on a real socket, and the check of it."""
    heard: list[tuple[bool, dict[str, str]]] = []
    async with vendor() as door:

        def hear(asked: Asked) -> Reply:
            url = f"{door.url}{asked.path}" + (f"?{urlencode(asked.query)}" if asked.query else "")
            form = parse_qsl(asked.body.decode(), keep_blank_values=True)
            right = verify_twilio(TOKEN, asked.headers["x-twilio-signature"], url, form)
            heard.append((right, dict(form) | dict(asked.query)))
            return Reply(b"", 204)

        door.answer = hear
        sender, sms = _sender(twilio, report_to=f"{door.url}/receipts"), an_sms()
        await sender.send(sms)
        await sender.close()
        assert await twilio.report(twilio.messages[0], "undelivered", 30003) == 204
        assert await twilio.reply(f"{door.url}/replies", TO, "ACK 4711") == 204
    (right, form), (right_too, reply) = heard
    assert right
    assert right_too
    receipt = twilio_receipt(form, form)
    assert receipt is not None
    assert (receipt.attempt_id, receipt.status, receipt.code) == (sms.attempt_id, "undelivered", "30003")
    assert (twilio_reply(reply).text, twilio_reply(reply).sender) == ("ACK 4711", TO)


FAULTS = st.sampled_from(
    [
        Fault(429, {"code": 20429, "message": "m"}),
        Fault(500),
        Fault(500, acts=True),
        Fault(502, acts=True),
        Fault(201, "no JSON", acts=True),
        Fault(reset=True),
        Fault(reset=True, acts=True),
    ]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(FAULTS, max_size=8), st.integers(-7_200, 7_200))
async def test_whatever_goes_wrong_each_message_is_there_once(faults: list[Fault], ahead: int) -> None:
    """Whoever hands over again only what was certainly not taken loses nothing and repeats nothing."""
    async with vendor() as served:
        twilio = Twilio(served, ahead=timedelta(seconds=ahead))
        twilio.faults.add(*faults)
        sender = _sender(twilio)
        for text in ("one", "two", "three"):
            handed: Handed = NotTaken("not yet")
            while not isinstance(handed, Taken):
                sms, since = an_sms(text), datetime.now(UTC)
                handed = await sender.send(sms)
                while isinstance(handed, Unsure):
                    handed = await sender.find(sms, since)
        await sender.close()
        assert [message.text for message in twilio.messages] == ["one", "two", "three"]
