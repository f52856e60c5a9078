"""Twilio's messages on a real socket: takes, lists and fetches them, and reports with its signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx

from tests.vendors.faults import Faults
from tests.vendors.server import Asked, Reply, Vendor

ACCOUNT = "AC" + "0123456789abcdef" * 2
TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
NUMBER = "+15005550006"
_VERSION = "/2010-04-01"
_E164 = re.compile(r"\+[1-9]\d{6,14}")


@dataclass(slots=True)
class Message:
    """One that was taken."""

    sid: str
    form: Mapping[str, str]
    created_at: datetime
    status: str = "queued"
    error_code: int | None = None
    body: str | None = None
    direction: str = "outbound-api"

    @property
    def to(self) -> str:
        return self.form["To"]

    @property
    def text(self) -> str:
        return self.form["Body"]


@dataclass
class Twilio:
    """What a vendor answers as when it is Twilio. ``ahead`` is by how much its clock is."""

    vendor: Vendor
    account: str = ACCOUNT
    user: str = ACCOUNT
    token: str = TOKEN
    ahead: timedelta = timedelta()
    faults: Faults = field(default_factory=Faults)
    messages: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vendor.answer = self.answer

    @property
    def url(self) -> str:
        return self.vendor.url

    @property
    def created(self) -> int:
        """How often somebody asked for a message to be sent, whatever came of it."""
        return sum(asked.method == "POST" for asked in self.vendor.asked)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def answer(self, asked: Asked) -> Reply:
        fault = self.faults.next()
        if fault is None or fault.acts:
            reply = self._act(asked)
        return reply if fault is None else fault.reply()

    def _act(self, asked: Asked) -> Reply:
        given = base64.b64encode(f"{self.user}:{self.token}".encode()).decode()
        if asked.headers.get("authorization") != f"Basic {given}":
            return self._error(401, 20003, "Authenticate")
        collection = f"{_VERSION}/Accounts/{self.account}/Messages"
        if asked.path == f"{collection}.json":
            return self._create(asked) if asked.method == "POST" else self._list(dict(asked.query))
        if asked.method == "GET" and asked.path.startswith(f"{collection}/"):
            sid = asked.path.removeprefix(f"{collection}/").removesuffix(".json")
            for message in self.messages:
                if message.sid == sid:
                    return self._reply(self.resource(message))
        return self._error(404, 20404, f"The requested resource {asked.path} was not found")

    def _create(self, asked: Asked) -> Reply:
        form = dict(parse_qsl(asked.body.decode(), keep_blank_values=True))
        if not form.get("To"):
            return self._error(400, 21604, "A 'To' phone number is required.")
        if not _E164.fullmatch(form["To"]):
            return self._error(400, 21211, f"The 'To' number {form['To']} is not a valid phone number.")
        if not form.get("Body"):
            return self._error(400, 21602, "Message body is required.")
        if not form.get("From") and not form.get("MessagingServiceSid"):
            return self._error(400, 21603, "A 'From' phone number is required.")
        return self._reply(self.resource(self.take(form)), 201)

    def take(self, form: Mapping[str, str], **how: Any) -> Message:
        """Queue one."""
        message = Message(f"SM{len(self.messages):032x}", form, self.now(), body=form["Body"], **how)
        self.messages.append(message)
        return message

    def _list(self, query: Mapping[str, str]) -> Reply:
        found = [message for message in reversed(self.messages) if query.get("To") in (None, message.to)]
        size, page = int(query.get("PageSize", "50")), int(query.get("Page", "0"))
        shown = found[page * size : (page + 1) * size]

        def uri(number: int) -> str:
            asks = {**query, "PageSize": str(size), "Page": str(number)}
            return f"{_VERSION}/Accounts/{self.account}/Messages.json?{urlencode(asks)}"

        return self._reply(
            {
                "messages": [self.resource(message) for message in shown],
                "page": page,
                "page_size": size,
                "start": page * size,
                "end": page * size + max(len(shown) - 1, 0),
                "uri": uri(page),
                "first_page_uri": uri(0),
                "next_page_uri": uri(page + 1) if (page + 1) * size < len(found) else None,
                "previous_page_uri": uri(page - 1) if page else None,
            }
        )

    def resource(self, message: Message) -> dict[str, Any]:
        """A message as it is described."""
        created, uri = format_datetime(message.created_at), f"{_VERSION}/Accounts/{self.account}/Messages/{message.sid}"
        return {
            "account_sid": self.account,
            "api_version": "2010-04-01",
            "body": message.body,
            "date_created": created,
            "date_sent": None if message.status in ("accepted", "queued") else created,
            "date_updated": created,
            "direction": message.direction,
            "error_code": message.error_code,
            "error_message": None,
            "from": message.form.get("From"),
            "messaging_service_sid": message.form.get("MessagingServiceSid"),
            "num_media": "0",
            "num_segments": "1",
            "price": None,
            "price_unit": "USD",
            "sid": message.sid,
            "status": message.status,
            "subresource_uris": {"media": f"{uri}/Media.json"},
            "to": message.to,
            "uri": f"{uri}.json",
        }

    def _reply(self, body: Any, status: int = 200) -> Reply:
        return Reply(body, status, {"Date": format_datetime(self.now(), usegmt=True)})

    def _error(self, status: int, code: int, message: str) -> Reply:
        more = f"https://www.twilio.com/docs/errors/{code}"
        return self._reply({"code": code, "message": message, "more_info": more, "status": status}, status)

    def signature(self, url: str, form: Mapping[str, str]) -> str:
        """Of a request of its own (twilio.com/docs/usage/security)."""
        signed = url + "".join(name + form[name] for name in sorted(form))
        return base64.b64encode(hmac.new(self.token.encode(), signed.encode(), hashlib.sha1).digest()).decode()

    async def report(self, message: Message, status: str, error_code: int | None = None) -> int:
        """Move it on and say so where it was told to; the status that came back."""
        message.status, message.error_code = status, error_code
        form = {
            "AccountSid": self.account,
            "ApiVersion": "2010-04-01",
            "From": message.form.get("From", ""),
            "MessageSid": message.sid,
            "MessageStatus": status,
            "SmsSid": message.sid,
            "SmsStatus": status,
            "To": message.to,
        }
        if error_code is not None:
            form |= {"ErrorCode": str(error_code), "ErrorMessage": ""}
        return await self.post(message.form["StatusCallback"], form)

    async def reply(self, url: str, sender: str, text: str) -> int:
        """Somebody sends a message to our number; the status that came back from the address for those."""
        sid = f"SM{hashlib.sha256(f'{sender} {text}'.encode()).hexdigest()[:32]}"
        form = {
            "AccountSid": self.account,
            "Body": text,
            "From": sender,
            "FromCountry": "US",
            "MessageSid": sid,
            "NumMedia": "0",
            "SmsMessageSid": sid,
            "SmsSid": sid,
            "SmsStatus": "received",
            "To": NUMBER,
        }
        return await self.post(url, form)

    async def post(self, url: str, form: Mapping[str, str]) -> int:
        async with httpx.AsyncClient(trust_env=False) as client:
            headers = {"X-Twilio-Signature": self.signature(url, form), "User-Agent": "TwilioProxy/1.1"}
            return (await client.post(url, data=dict(form), headers=headers)).status_code
