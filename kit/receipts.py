"""What vendors of mail and text messages say afterwards: their signatures, and their words in one neutral form.

Checked at the door of the API, and so without a vendor's SDK.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from kit import shallow
from kit.redaction import in_words
from kit.signing import KeyUnusable

#: Under this name an attempt's id goes along with a mail, and comes back in each event about it.
SENDGRID_ATTEMPT = "holdfast_attempt"
#: And under this one in the query of the address that Twilio reports to.
TWILIO_ATTEMPT = "attempt"

SENDGRID_SIGNATURE_HEADER = "x-twilio-email-event-webhook-signature"
SENDGRID_TIMESTAMP_HEADER = "x-twilio-email-event-webhook-timestamp"
TWILIO_SIGNATURE_HEADER = "x-twilio-signature"
TWILIO_SETTINGS_HEADER = "x-twilio-webhooks-signature-settings"

EVENTS_MAX = 10_000
_ID_CHARS_MAX = 200

#: How far a message is. ``accepted``: the vendor has it (and may be retrying); ``sent``: a carrier has it;
#: ``delivered``: it arrived; ``undelivered``: it never will. A mail can bounce after it was delivered.
Standing = Literal["accepted", "sent", "delivered", "undelivered"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a vendor says of one message. ``event_id`` is the same when it says so again; ``reference`` is what it gave
    when it took the message. ``said`` is its own word, ``code`` and ``detail`` why, without addresses. ``at`` is the
    vendor's time, where it gives one."""

    vendor: Literal["sendgrid", "twilio"]
    event_id: str
    status: Standing
    said: str
    attempt_id: UUID | None = None
    reference: str | None = None
    at: datetime | None = None
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A text message that somebody sent to one of our numbers; ``opted_out`` when it made the vendor stop (or ``START``
    made it begin again: False; None: neither)."""

    reference: str
    sender: str
    recipient: str
    text: str
    opted_out: bool | None = None


class ReceiptsUnreadable(ValueError):
    """A body with a right signature that is not what the vendor documents; the message says what is wrong."""


@lru_cache(maxsize=8)
def sendgrid_key(public_key: str) -> ec.EllipticCurvePublicKey:
    """The key as SendGrid shows it (base64 of DER) or as PEM; raises ``KeyUnusable``."""
    text = public_key.strip()
    try:
        if text.startswith("-----"):
            key = load_pem_public_key(text.encode())
        else:
            key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusable("this is not a public key as SendGrid shows it") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyUnusable("this is not an ECDSA key on P-256")
    return key


def verify_sendgrid(public_key: str, signature: str, timestamp: str, body: bytes) -> bool:
    """Whether SendGrid signed this body (Signed Event Webhook: ECDSA over timestamp and raw body, P-256, SHA-256).

    It says nothing of freshness: SendGrid delivers late, and an event that comes again is known by its id. Raises
    ``KeyUnusable`` for a key that is none.
    """
    key = sendgrid_key(public_key)
    try:
        decoded = base64.b64decode(signature, validate=True)
        key.verify(decoded, timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_twilio(
    token: str,
    signature: str,
    url: str,
    content: bytes | Mapping[str, str] | Iterable[tuple[str, str]] = (),
    *,
    settings: str = "",
) -> bool:
    """Whether Twilio signed this request: HMAC over the address and the sorted form, base64.

    ``url`` is the whole address that Twilio was told, query included; it signs sometimes with and sometimes without the
    port. ``content`` is the form, its empty fields too, or the raw body where that is no form: then the query must hold
    its hash. ``settings`` is the header of that name, where there is one; ``token`` is then the shared key's secret.
    """
    algorithm = _algorithm(settings)
    if algorithm is None or not token:
        return False
    signed = ""
    if isinstance(content, bytes):
        claimed = dict(parse_qsl(urlsplit(url).query)).get("bodySHA256", "")
        if not hmac.compare_digest(hashlib.sha256(content).hexdigest().encode(), claimed.encode()):
            return False
    else:
        pairs = content.items() if isinstance(content, Mapping) else content
        signed = "".join(name + value for name, value in sorted(set(pairs)))
    right = False
    for address in _with_and_without_port(url):
        mac = hmac.new(token.encode(), (address + signed).encode(), algorithm).digest()
        # Both are tried whatever the first says, so that time tells nothing.
        right |= hmac.compare_digest(base64.b64encode(mac), signature.encode())
    return right


def _algorithm(settings: str) -> str | None:
    for part in settings.split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            return {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}.get(value.strip().upper())
    return "sha1"


def _with_and_without_port(url: str) -> Sequence[str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ()
    bare = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    port = port or (443 if parts.scheme == "https" else 80)
    # Not put together again by urllib, which would tidy what was signed.
    return [url.replace(f"//{parts.netloc}", f"//{netloc}", 1) for netloc in (bare, f"{bare}:{port}")]


_SENDGRID: Mapping[str, Standing] = {
    "processed": "accepted",
    "deferred": "accepted",
    "delivered": "delivered",
    "bounce": "undelivered",
    "dropped": "undelivered",
}


def sendgrid_receipts(body: bytes) -> Sequence[Receipt]:
    """The receipts in a body whose signature is right, in its order; what people do with a mail is left out.

    Raises ``ReceiptsUnreadable``.
    """
    try:
        events = shallow.loads(body)
    except ValueError:
        raise ReceiptsUnreadable("the body is not JSON") from None
    if not isinstance(events, list) or len(events) > EVENTS_MAX:
        raise ReceiptsUnreadable(f"the body is not a list of at most {EVENTS_MAX} events")
    if not all(isinstance(event, dict) for event in events):
        raise ReceiptsUnreadable("an event is not an object")
    return [_sendgrid_receipt(event) for event in events if str(event.get("event")) in _SENDGRID]


def _sendgrid_receipt(event: Mapping[str, Any]) -> Receipt:
    said, event_id = event["event"], event.get("sg_event_id")
    if not isinstance(event_id, str) or not 0 < len(event_id) <= _ID_CHARS_MAX:
        raise ReceiptsUnreadable("an event has no sg_event_id")
    message_id, kind = event.get("sg_message_id"), event.get("type")
    if said == "bounce" and kind in ("bounce", "blocked"):
        said = "bounced" if kind == "bounce" else "blocked"
    return Receipt(
        vendor="sendgrid",
        event_id=event_id,
        status=_SENDGRID[event["event"]],
        said=said,
        attempt_id=_uuid(event.get(SENDGRID_ATTEMPT)),
        reference=_message_id(message_id) if isinstance(message_id, str) else None,
        at=_instant(event.get("timestamp")),
        code=_text(event.get("status")),
        detail=_text(event.get("reason") or event.get("response")),
    )


def _message_id(sg_message_id: str) -> str | None:
    """The part that the answer to the request called ``X-Message-Id``; the rest names machines of theirs."""
    return re.split(r"\.(?:filter|recvd)", sg_message_id, maxsplit=1)[0][:_ID_CHARS_MAX] or None


_TWILIO: Mapping[str, Standing] = {
    "accepted": "accepted",
    "scheduled": "accepted",
    "queued": "accepted",
    "sending": "accepted",
    "sent": "sent",
    # Some parts arrived: a carrier has it, and more is not known.
    "partially_delivered": "sent",
    "delivered": "delivered",
    "read": "delivered",
    "undelivered": "undelivered",
    "failed": "undelivered",
    "canceled": "undelivered",
}

#: Why messages fail, in words (twilio.com/docs/api/errors); the others keep their number.
TWILIO_ERRORS: Mapping[str, str] = {
    "21211": "the number is not valid",
    "21408": "sending to this country is not switched on",
    "21610": "the recipient asked for no more messages",
    "21612": "this sender cannot reach that number",
    "21614": "the number is not a mobile number",
    "30001": "too many messages were waiting",
    "30002": "the account is suspended",
    "30003": "the handset could not be reached",
    "30004": "the recipient or the carrier blocks it",
    "30005": "the handset is unknown",
    "30006": "a landline, or a carrier that cannot be reached",
    "30007": "the carrier filtered it out",
    "30008": "an unknown error at the carrier",
    "30034": "the sender is not registered with the carriers (A2P 10DLC)",
    "30036": "it was of no use any more before it could be sent",
}


def twilio_standing(status: str) -> Standing | None:
    """How far a message with one of Twilio's statuses is; None for an incoming one and for a word unknown here."""
    return _TWILIO.get(status)


def twilio_receipt(form: Mapping[str, str], query: Mapping[str, str]) -> Receipt | None:
    """The receipt in a status callback whose signature is right; None for a status that says nothing new.

    ``query`` is of the address that Twilio was told. Raises ``ReceiptsUnreadable``.
    """
    sid, said = form.get("MessageSid") or form.get("SmsSid", ""), form.get("MessageStatus") or form.get("SmsStatus", "")
    if not 0 < len(sid) <= _ID_CHARS_MAX or not said:
        raise ReceiptsUnreadable("MessageSid and MessageStatus are needed")
    standing = twilio_standing(said)
    if standing is None:
        return None
    code = form.get("ErrorCode", "").strip()
    code = "" if code in ("0", "null") else code
    return Receipt(
        vendor="twilio",
        # It has no id and no time of its own for what it says; it says each thing of a message once.
        event_id=f"{sid}:{said}",
        status=standing,
        said=said,
        attempt_id=_uuid(query.get(TWILIO_ATTEMPT)),
        reference=sid,
        code=code[:_ID_CHARS_MAX],
        detail=TWILIO_ERRORS.get(code, _text(form.get("ErrorMessage"))),
    )


def twilio_reply(form: Mapping[str, str]) -> Reply:
    """The message in a request about an incoming one whose signature is right; raises ``ReceiptsUnreadable``."""
    sid, sender = form.get("MessageSid") or form.get("SmsSid", ""), form.get("From", "")
    if not 0 < len(sid) <= _ID_CHARS_MAX or not 0 < len(sender) <= _ID_CHARS_MAX:
        raise ReceiptsUnreadable("MessageSid and From are needed")
    return Reply(
        reference=sid,
        sender=sender,
        recipient=form.get("To", ""),
        text=form.get("Body", ""),
        opted_out={"STOP": True, "START": False}.get(form.get("OptOutType", "")),
    )


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _instant(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _text(value: object) -> str:
    return in_words(value) if isinstance(value, str) else ""
