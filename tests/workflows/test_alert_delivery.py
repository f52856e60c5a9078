"""Alerts through both vendors' real SDKs and their doubles: receipts, doubts, retries, and answers."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
import standardwebhooks
from temporalio.client import Client

from db.alerts.notifications import Stored
from domain.alerts.model import AlertType, Channel, DeliveryState, Policy, Status
from tests.alert_house import AlertHouse, alert_house
from tests.alerting import ADDRESSES, SLOW, USER
from tests.api.caller import ok
from tests.polling import eventually
from tests.prices import set_prices
from tests.receivers import obedient, receiver
from tests.vendors.faults import Fault
from tools.local.postgres import EmbeddedPostgres
from tools.local.temporal import TemporalDevServer


@pytest.fixture
async def house(
    postgres: EmbeddedPostgres, temporal: Client, temporal_server: TemporalDevServer
) -> AsyncIterator[AlertHouse]:
    async with alert_house(postgres, temporal, temporal_server.address) as made:
        yield made


async def refused_receipts(house: AlertHouse, vendor: str) -> float:
    text = (await house.service.send("GET", "/metrics")).text
    found = re.search(rf'holdfast_receipts_total{{became="refused",vendor="{vendor}"}} ([0-9.]+)', text)
    return 0.0 if found is None else float(found[1])


def states(found: Stored) -> list[tuple[str, str]]:
    return [(each.channel.value, each.state.value) for each in found.alert.deliveries]


async def test_from_a_price_that_falls_to_its_recovery(house: AlertHouse) -> None:
    """Margin call, mail, a bounce, a text message, its link, and the end; every row and event is there once."""
    alerting, service = house.alerting, house.service
    await set_prices(house.engine, ETH=2_000, USDC=1)
    for channel in (Channel.EMAIL, Channel.SMS):
        await alerting.contact(channel)
    await alerting.policy("margin_call", SLOW)
    account = {"user_id": "alice", "collateral_positions": {"ETH": 10}, "borrow_positions": {"USDC": 10_000}}
    ok(await service.post("margin/health", account))
    await set_prices(house.engine, ETH=1_400)
    ok(await service.post("margin/health", {"user_id": "alice"}))
    await alerting.until(lambda found: bool(found) and found[0].status is Status.SENT)
    [mail] = house.sendgrid.mails
    assert mail.to == ADDRESSES[Channel.EMAIL]
    assert await house.sendgrid.report(house.mail_receipts, house.sendgrid.bounce(mail)) == 204
    await alerting.until(lambda found: states(found[0]) == [("email", "failed"), ("sms", "sent")])
    [text] = house.twilio.messages
    assert (text.to, len(text.text) <= 160) == (ADDRESSES[Channel.SMS], True)
    assert await house.twilio.report(text, "delivered") == 204
    [call] = await alerting.until(lambda found: found[0].status is Status.PARTIALLY_DELIVERED)
    [link] = re.findall(r"http://\S+", text.text)
    async with httpx.AsyncClient() as browser:
        assert "<button>" in (await browser.get(link)).text
        assert "Acknowledged" in (await browser.post(link)).text
    await set_prices(house.engine, ETH=2_000)
    ok(await service.post("margin/health", {"user_id": "alice"}))
    found = await alerting.until(lambda found: len(found) == 2 and states(found[1]) == [("sms", "sent")])
    assert [one.alert.alert_type for one in found] == [AlertType.CALL, AlertType.RECOVERED]
    assert (len(house.sendgrid.mails), len(house.twilio.messages)) == (1, 2), "on the way that worked"
    log = await alerting.log(call.notification_id)
    assert [(one.entry.phase.value, one.entry.outcome) for one in log] == [
        ("begun", None),
        ("ended", "taken"),
        ("receipt", "bounced"),
        ("begun", None),
        ("ended", "taken"),
        ("receipt", "delivered"),
        ("acknowledged", None),
    ]
    events = ok(await service.get("events", topic="alerts.events.v1"))["items"]
    assert sorted(one["type"] for one in events if one["subject"] == f"alert:{call.notification_id}") == [
        "alert.acknowledged",
        "alert.partially_delivered",
        "alert.partially_sent",
        "alert.passed",
        "alert.raised",
        "alert.receipt",
        "alert.receipt",
        "alert.sent",
    ]


async def test_a_users_own_system_is_verified_and_called(house: AlertHouse) -> None:
    """Its code comes by the same signed requests as its alerts."""
    async with receiver(obedient) as there:
        body = {"user_id": USER, "channel": "webhook", "address": there.url}
        made = ok(await house.service.post("alerts/contacts", body), 201)

        async def called(times: int) -> bool:
            return len(there.requests) >= times

        await eventually(lambda: called(1))
        [code] = re.findall(r"\b[0-9]{6}\b", json.loads(there.requests[0].body)["data"]["subject"])
        verified = ok(await house.service.post(f"alerts/contacts/{made['contact_id']}/verify", {"code": code}))
        assert verified["verified"]
        await house.alerting.happen("liquidation_due")
        [due] = await house.alerting.until(lambda found: bool(found) and found[0].status is Status.DELIVERED)
        assert states(due) == [("webhook", "delivered")]
        for request in there.requests:
            assert standardwebhooks.Webhook(made["secret"]).verify(request.body, dict(request.headers))
        assert json.loads(there.requests[1].body)["data"]["alert_type"] == "liquidation_due"


async def test_receipts_are_signed_counted_and_never_move_it_backwards(house: AlertHouse) -> None:
    alerting = house.alerting
    await alerting.contact(Channel.EMAIL)
    await alerting.happen("margin_warning")
    [sent] = await alerting.until(lambda found: bool(found) and found[0].status is Status.SENT)
    [mail] = house.sendgrid.mails
    delivered, processed = house.sendgrid.event(mail, "delivered"), house.sendgrid.event(mail, "processed")
    body, headers = house.sendgrid.signed([delivered])
    async with httpx.AsyncClient() as client:
        for wrong, said in (
            (body + b" ", headers),
            (body, {}),
            (body, headers | {"X-Twilio-Email-Event-Webhook-Timestamp": "1"}),
        ):
            answer = await client.post(house.mail_receipts, content=wrong, headers=said)
            assert (answer.status_code, answer.json()["code"]) == (403, "signature_invalid")
        form = {"MessageSid": "SM1", "MessageStatus": "delivered"}
        url = f"{house.api}/api/v1/alerts/receipts/twilio"
        assert (await client.post(url, data=form)).status_code == 403
    assert (await refused_receipts(house, "sendgrid"), await refused_receipts(house, "twilio")) == (3, 1)
    assert (await alerting.get(sent.notification_id)).status is Status.SENT
    for events in ([delivered], [delivered], [processed, delivered], [house.sendgrid.event(mail, "deferred")]):
        assert await house.sendgrid.report(house.mail_receipts, *events) == 204
    assert (await alerting.get(sent.notification_id)).status is Status.DELIVERED
    receipts = [one.entry.outcome for one in await alerting.log(sent.notification_id) if one.entry.phase == "receipt"]
    assert receipts == ["delivered", "processed", "deferred"], "each is kept once"
    stranger = house.sendgrid.event(mail, "bounce", holdfast_attempt="01a21836-2f76-78dd-9a73-dccb80858459")
    assert await house.sendgrid.report(house.mail_receipts, stranger | {"sg_message_id": "nobody"}) == 204


async def test_an_answer_by_text_message_takes_note(house: AlertHouse) -> None:
    alerting = house.alerting
    await alerting.contact(Channel.SMS)
    for kind in ("margin_call", "liquidation_due"):
        await alerting.policy(kind, SLOW)
    await alerting.happen("liquidation_due")
    [sent] = await alerting.until(lambda found: bool(found) and found[0].status is Status.SENT)
    [text] = house.twilio.messages
    [code] = re.findall(r"Reply OK (\w{4})\.", text.text)
    for words, number in (("who is this", text.to), (f"OK {code}", "+4915199999999"), ("OK 0000", text.to)):
        assert await house.twilio.reply(house.replies, number, words) == 200
    assert (await alerting.get(sent.notification_id)).status is Status.SENT
    assert await house.twilio.reply(house.replies, text.to, f"ok {code.lower()}") == 200
    noted = await alerting.get(sent.notification_id)
    assert (noted.status, noted.alert.acknowledged.via if noted.alert.acknowledged else "") == ("ACKNOWLEDGED", "sms")
    assert await house.twilio.report(text, "undelivered", 30003) == 204
    await alerting.until(lambda found: states(found[0]) == [("sms", "failed")])
    assert len(house.twilio.messages) == 1, "nothing follows"


async def test_what_is_not_known_is_found_out_before_it_is_sent_again(house: AlertHouse) -> None:
    """Taken and not answered: once. Not taken, and not answered: again. Too many: later. Refused: the next way."""
    alerting = house.alerting
    numbers = [f"+491511234560{number}" for number in range(4)]
    for user, number in enumerate(numbers):
        await alerting.contact(Channel.SMS, number, user=f"user-{user}")
    await alerting.policy("margin_warning", Policy())
    house.twilio.faults.add(Fault(status=500, acts=True))
    await alerting.happen("margin_warning", user="user-0")

    async def reaches(user: str, state: DeliveryState, attempts: int) -> bool:
        [found] = await alerting.alerts(user_id=user)
        [delivery] = found.alert.deliveries
        return (delivery.state, delivery.attempts) == (state, attempts)

    await alerting.until(lambda found: len(found) == 1 and bool(found[0].alert.deliveries))
    await eventually(lambda: reaches("user-0", DeliveryState.SENT, 1))
    house.twilio.faults.add(Fault(status=503))
    await alerting.happen("margin_warning", user="user-1")
    await alerting.until(lambda found: len(found) == 2 and bool(found[1].alert.deliveries))
    await eventually(lambda: reaches("user-1", DeliveryState.SENT, 2))
    house.twilio.faults.add(Fault(status=429, body={"code": 20429, "message": "Too many", "status": 429}))
    await alerting.happen("margin_warning", user="user-2")
    await alerting.until(lambda found: len(found) == 3 and bool(found[2].alert.deliveries))
    await eventually(lambda: reaches("user-2", DeliveryState.SENT, 2))
    house.twilio.faults.add(Fault(status=400, body={"code": 21610, "message": "unsubscribed", "status": 400}))
    await alerting.happen("margin_warning", user="user-3")
    await alerting.until(lambda found: len(found) == 4 and found[3].status is Status.FAILED)
    assert [message.to for message in house.twilio.messages] == numbers[:3]
    log = await alerting.log((await alerting.alerts(user_id="user-1"))[0].notification_id)
    assert [(one.entry.phase.value, one.entry.outcome) for one in log] == [
        ("begun", None),
        ("ended", "unsure"),
        ("found", "not_taken"),
        ("begun", None),
        ("ended", "taken"),
    ]
