"""SendGrid on a real socket: takes mails as its description says, keeps them, and reports with its signature."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.vendors.faults import Faults
from tests.vendors.server import Asked, Reply, Vendor

API_KEY = "SG.0123456789abcdefghij.0123456789abcdefghijklmnopqrstuvwxyz0123456"
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True, slots=True)
class Queued:
    """A mail that was taken: one recipient's."""

    message_id: str
    to: str
    custom_args: Mapping[str, str]
    content: Mapping[str, Any]

    def text(self, kind: str = "text/plain") -> str:
        return next(str(part["value"]) for part in self.content["content"] if part["type"] == kind)


class SendGrid:
    """What a vendor answers as when it is SendGrid."""

    def __init__(self, vendor: Vendor, api_key: str = API_KEY) -> None:
        self.api_key = api_key
        self.faults = Faults()
        self.mails: list[Queued] = []
        self.vendor = vendor
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._events = 0
        vendor.answer = self.answer

    @property
    def url(self) -> str:
        return self.vendor.url

    @property
    def public_key(self) -> str:
        """As its settings page shows it."""
        public = self._private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(public).decode()

    def answer(self, asked: Asked) -> Reply:
        fault = self.faults.next()
        if fault is None or fault.acts:
            reply = self._take(asked)
        return reply if fault is None else fault.reply()

    def _take(self, asked: Asked) -> Reply:
        if (asked.method, asked.path) != ("POST", "/v3/mail/send"):
            return _errors(404, "not found")
        if asked.headers.get("authorization") != f"Bearer {self.api_key}":
            return _errors(401, "The provided authorization grant is invalid, expired, or revoked")
        try:
            body = asked.json()
            recipients = [(one, to["email"]) for one in body["personalizations"] for to in one["to"]]
            right = all(_ADDRESS.fullmatch(to) for _, to in recipients) and body["content"] and body["subject"]
        except (ValueError, KeyError, TypeError):
            return _errors(400, "Bad Request")
        if not _ADDRESS.fullmatch(str(body.get("from", {}).get("email"))):
            return _errors(400, "The from object must be provided for every email send.", "from.email")
        if not right:
            return _errors(400, "Does not contain a valid address.", "personalizations.0.to.0.email")
        message_id = base64.urlsafe_b64encode(f"message {len(self.mails):08d}".encode()).decode().rstrip("=")
        for personal, to in recipients:
            self.mails.append(Queued(message_id, to, personal.get("custom_args", {}), body))
        return Reply(b"", 202, {"X-Message-Id": message_id, "Content-Type": "text/plain"})

    def event(self, mail: Queued, event: str, **more: Any) -> dict[str, Any]:
        """What is said of a mail; each event has an id of its own."""
        self._events += 1
        return {
            "email": mail.to,
            "timestamp": int(time.time()),
            "smtp-id": f"<{mail.message_id}@geopod-ismtpd-1>",
            "event": event,
            "category": [],
            "sg_event_id": base64.urlsafe_b64encode(f"{event} {self._events:08d}".encode()).decode(),
            "sg_message_id": f"{mail.message_id}.recvd-5f54b5d587-8c2kv-1-65A52DB1-2F.0",
            **mail.custom_args,
            **more,
        }

    def bounce(self, mail: Queued) -> dict[str, Any]:
        """It does not exist there."""
        reason = f"550 5.1.1 <{mail.to}>: Recipient address rejected: User unknown"
        return self.event(mail, "bounce", type="bounce", status="5.1.1", reason=reason)

    def signed(self, events: Sequence[Mapping[str, Any]]) -> tuple[bytes, dict[str, str]]:
        """A body as it is posted, and its headers."""
        body = json.dumps(list(events), separators=(",", ":")).encode() + b"\r\n"
        timestamp = str(int(time.time()))
        signature = self._private.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        return body, {
            "Content-Type": "application/json",
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        }

    async def report(self, url: str, *events: Mapping[str, Any]) -> int:
        """Post them; the status that came back."""
        body, headers = self.signed(events)
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.post(url, content=body, headers=headers)).status_code


def _errors(status: int, message: str, field: str | None = None) -> Reply:
    # It writes the word where there is none.
    return Reply({"errors": [{"message": message, "field": field or "null"}]}, status)
