"""From a price that falls to somebody who took note: the whole stack, with SendGrid and Twilio on real sockets."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest

from tests.e2e.stack import CommandLine, pids_in_file, running
from tests.polling import eventually
from tests.vendors.faults import Fault
from tests.vendors.mailer import API_KEY, Queued, SendGrid
from tests.vendors.server import Vendor, vendor
from tests.vendors.texter import ACCOUNT, NUMBER, TOKEN, Message, Twilio

pytestmark = pytest.mark.timeout(300)

LINK = re.compile(r"https?://[^\s\"']+/a/[A-Za-z0-9_=-]+")
#: Healthy at 3000 dollars for an ETH, a margin call at 2090.
OWES = {"collateral_positions": {"ETH": 1}, "borrow_positions": {"DAI": 1500}}


@dataclass
class Desk:
    """A running stack, both vendors, and a client with the first key."""

    commands: CommandLine
    sendgrid: SendGrid
    twilio: Twilio
    http: httpx.AsyncClient

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.http.post(f"/api/v1/{path}", json=body)
        assert answer.is_success, answer.text
        content: dict[str, Any] = answer.json()
        return content

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        answer = await self.http.get(f"/api/v1/{path}", params=query)
        assert answer.is_success, answer.text
        content: dict[str, Any] = answer.json()
        return content

    async def price(self, dollars: str) -> None:
        await asyncio.to_thread(self.commands.run, "prices", "set", f"ETH={dollars}")
        await self.post("prices/refresh", {})

    async def contact(self, user: str, channel: str, address: str) -> None:
        """A contact whose code came back from where it was sent."""
        made = await self.post("alerts/contacts", {"user_id": user, "channel": channel, "address": address})
        text = (await self.mail(address)).text() if channel == "email" else (await self.sms(address)).text
        code = re.search(r"\b\d{6}\b", text)
        assert code is not None, text
        assert (await self.post(f"alerts/contacts/{made['contact_id']}/verify", {"code": code[0]}))["verified"]

    def receipts(self, kind: str) -> str:
        """Where receipts of a kind are taken."""
        return f"{self.commands.stack.api_url}/api/v1/alerts/receipts/{kind}"

    def mails(self, to: str) -> list[Queued]:
        return [mail for mail in self.sendgrid.mails if mail.to == to]

    def texts(self, to: str) -> list[Message]:
        return [message for message in self.twilio.messages if message.to == to]

    async def mail(self, to: str, number: int = 1) -> Queued:
        """The mail that is this one of those to an address."""
        await self.until(lambda: len(self.mails(to)) >= number)
        return self.mails(to)[number - 1]

    async def sms(self, to: str, number: int = 1) -> Message:
        await self.until(lambda: len(self.texts(to)) >= number)
        return self.texts(to)[number - 1]

    async def until(self, condition: Callable[[], bool]) -> None:
        async def holds() -> bool:
            return condition()

        await eventually(holds, limit_seconds=60)

    async def alert(self, user: str, alert_type: str, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """A user's alert of a type, once it is as it should be; with every attempt."""
        found: dict[str, Any] = {}

        async def is_right() -> bool:
            listed = (await self.get("alerts", user_id=user, alert_type=alert_type))["items"]
            if listed:
                found.update(await self.get(f"alerts/{listed[0]['notification_id']}"))
            return len(listed) == 1 and right(found)

        await eventually(is_right, limit_seconds=120)
        return found


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with vendor() as mail_vendor, vendor() as text_vendor:
        sendgrid, twilio = SendGrid(mail_vendor), Twilio(text_vendor)
        commands = CommandLine(
            tmp_path_factory.mktemp("alerts") / "home",
            MAIL_SENDGRID_API_KEY=API_KEY,
            MAIL_SENDGRID_URL=sendgrid.url,
            MAIL_SENDGRID_RECEIPT_KEY=sendgrid.public_key,
            MAIL_FROM="Holdfast <alerts@example.com>",
            SMS_TWILIO_ACCOUNT_SID=ACCOUNT,
            SMS_TWILIO_AUTH_TOKEN=TOKEN,
            SMS_TWILIO_URL=twilio.url,
            SMS_FROM=NUMBER,
            PUBLIC_URL="",
            CHECKPOINT_SECONDS="1",
            LOG_LEVEL="DEBUG",
        )
        with ExitStack() as stack:
            # The vendors answer in this loop, so the stack is started beside it.
            await asyncio.to_thread(stack.enter_context, running(commands))
            try:
                key = await asyncio.to_thread(commands.home.api_key_file.read_text)
                headers = {"X-API-Key": key.strip()}
                async with httpx.AsyncClient(base_url=commands.stack.api_url, headers=headers, timeout=30) as http:
                    yield Desk(commands, sendgrid, twilio, http)
            finally:
                await asyncio.to_thread(stack.close)


async def test_a_price_falls_and_somebody_takes_note(desk: Desk) -> None:
    user, address, number = "alice", "alice@example.com", "+4915112345678"
    await desk.contact(user, "email", address)
    await desk.contact(user, "sms", number)
    assert (await desk.post("margin/health", {"user_id": user, **OWES}))["status"] == "HEALTHY"

    await desk.price("2090")
    mail = await desk.mail(address, 2)
    assert "MARGIN CALL" in str(mail.content["subject"])
    assert LINK.search(mail.text())
    assert len(desk.texts(number)) == 1, "only the code; a text message comes when the mail fails"

    receipts, bounced = desk.receipts("sendgrid"), desk.sendgrid.bounce(mail)
    assert await SendGrid(Vendor()).report(receipts, bounced) == 403, "signed by somebody else"
    # As it comes in life: out of order, and several times.
    for _ in range(3):
        assert await desk.sendgrid.report(receipts, bounced, desk.sendgrid.event(mail, "processed")) == 204

    message = await desk.sms(number, 2)
    assert len(message.text) <= 160
    for status in ("sent", "delivered", "sent"):
        assert await desk.twilio.report(message, status) == 204

    link = LINK.search(message.text) or LINK.search(mail.text())
    assert link is not None
    async with httpx.AsyncClient(timeout=30) as anybody:
        for _ in range(2):
            # A scanner of mail opens every link.
            assert (await anybody.get(link[0])).status_code == 200
        standing = await desk.alert(user, "margin_call", lambda found: found["status"] == "PARTIALLY_DELIVERED")
        assert standing["acknowledged_at"] is None
        assert (await anybody.post(link[0])).status_code == 200
        assert (await anybody.post(link[0])).status_code == 200
    alert = await desk.alert(user, "margin_call", lambda found: found["acknowledged_at"] is not None)
    assert (alert["status"], alert["acknowledged_via"], alert["acknowledged_by"]) == ("ACKNOWLEDGED", "link", user)
    assert [(each["channel"], each["state"]) for each in alert["deliveries"]] == [
        ("email", "failed"),
        ("sms", "delivered"),
    ]

    await desk.price("3000")
    over = await desk.alert(user, "margin_recovered", lambda found: found["status"] in ("SENT", "DELIVERED"))
    assert [each["channel"] for each in over["deliveries"]] == ["sms"], "on the way that arrived"
    assert (len(desk.mails(address)), len(desk.texts(number))) == (2, 3), "and nothing besides"
    await each_thing_once(desk, user, alert)


async def each_thing_once(desk: Desk, user: str, alert: dict[str, Any]) -> None:
    """Rows and events of a margin call that bounced, was told by SMS, was acknowledged and is over."""
    phases = [(each["phase"], each["channel"], each["outcome"]) for each in alert["attempts"]]
    assert phases.count(("begun", "email", None)) == phases.count(("begun", "sms", None)) == 1
    assert [phase for phase, _, _ in phases].count("ended") == 2
    assert [phase for phase, _, _ in phases].count("acknowledged") == 1
    receipts = sorted(str(outcome) for phase, _, outcome in phases if phase == "receipt")
    assert receipts == ["bounced", "delivered", "processed", "processed", "processed", "sent"], "each event counts once"
    page = (await desk.get("events", limit=200))["items"]
    of_alert = [each["type"] for each in page if each["subject"] == f"alert:{alert['notification_id']}"]
    for once in ("alert.raised", "alert.acknowledged", "alert.recovered"):
        assert of_alert.count(once) <= 1, of_alert
    assert of_alert.count("alert.raised") == of_alert.count("alert.acknowledged") == 1, of_alert
    of_margin = [each["type"] for each in page if each["subject"] == f"margin:{user}"]
    assert (of_margin.count("margin_call"), of_margin.count("margin_recovered")) == (1, 1), of_margin
    with psycopg.connect(desk.commands.stack.database_url) as connection:
        rows = connection.execute(
            "SELECT alert_type, count(*) FROM alert_notifications WHERE user_id = %s GROUP BY 1 ORDER BY 1", (user,)
        ).fetchall()
    assert rows == [("contact_code", 2), ("margin_call", 1), ("margin_recovered", 1)]


async def test_a_worker_dies_while_vendors_have_its_requests(desk: Desk) -> None:
    """Answers are lost with the process. What the vendors took is found out and never sent again; what they provably
    did not take is."""
    numbers, address = {"bob": "+4915187654321", "carol": "+4915187654322"}, "dave@example.com"
    for user, number in numbers.items():
        await desk.contact(user, "sms", number)
    await desk.contact("dave", "email", address)
    for user in (*numbers, "dave"):
        assert (await desk.post("margin/health", {"user_id": user, **OWES}))["status"] == "HEALTHY"
    desk.sendgrid.faults.add(Fault(silent=True, acts=True))
    desk.twilio.faults.add(Fault(silent=True, acts=True), Fault(silent=True))
    asked = desk.twilio.created
    await desk.price("2080")
    await desk.until(lambda: desk.twilio.created == asked + 2 and len(desk.mails(address)) == 2)
    os.kill(pids_in_file(desk.commands.home)["worker"], signal.SIGKILL)
    [taken] = [user for user, number in numbers.items() if len(desk.texts(number)) == 2]

    doubtful = await desk.alert("dave", "margin_call", lambda found: found["status"] == "UNKNOWN")
    event = desk.sendgrid.event(desk.mails(address)[1], "delivered")
    assert await desk.sendgrid.report(desk.receipts("sendgrid"), event) == 204
    mailed = await desk.alert("dave", "margin_call", lambda found: found["status"] == "DELIVERED")
    assert [each["attempts"] for each in doubtful["deliveries"] + mailed["deliveries"]] == [1, 1]

    for user, number in numbers.items():
        found = await desk.alert(user, "margin_call", lambda found: found["status"] == "SENT")
        assert [each["attempts"] for each in found["deliveries"]] == [1 if user == taken else 2]
        assert found["deliveries"][0]["reference"] == desk.texts(number)[1].sid
        await desk.twilio.reply(desk.receipts("twilio/replies"), number, "OK")
        noted = await desk.alert(user, "margin_call", lambda found: found["acknowledged_at"] is not None)
        assert (noted["acknowledged_via"], noted["acknowledged_by"]) == ("sms", user)
    await desk.price("3000")
    for user, number in numbers.items():
        await desk.alert(user, "margin_recovered", lambda found: found["status"] == "SENT")
        assert len(desk.texts(number)) == 3, "the code, the call and its end"
    await desk.mail(address, 3)
    assert len(desk.mails(address)) == 3


async def test_that_notice_was_given_can_be_proven(desk: Desk) -> None:
    """Sealed within a checkpoint: what was sent when, and what the vendors said."""
    [alert] = (await desk.get("alerts", user_id="alice", alert_type="margin_call"))["items"]
    proof: dict[str, Any] = {}

    async def complete() -> bool:
        proof.update(await desk.get(f"alerts/{alert['notification_id']}/proof"))
        return bool(proof["complete"])

    await eventually(complete, limit_seconds=60)


async def test_no_key_is_in_any_log(desk: Desk) -> None:
    """Of processes that told everything that they could."""
    for role in ("worker", "api", "supervisor"):
        log = await asyncio.to_thread(desk.commands.home.log(role).read_text)
        assert log
        assert not [secret for secret in (API_KEY, TOKEN, desk.http.headers["X-API-Key"]) if secret in log]
