"""Receipts: the vendors' own vectors, everything that must not pass, and their words in one neutral form."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from kit.receipts import (
    EVENTS_MAX,
    SENDGRID_ATTEMPT,
    ReceiptsUnreadable,
    Standing,
    sendgrid_key,
    sendgrid_receipts,
    twilio_receipt,
    twilio_reply,
    verify_sendgrid,
    verify_twilio,
)
from kit.signing import KeyUnusable

# Of sendgrid-python's own tests; it holds only with the line end.
KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eN"
    "Ec6wEA3F+g=="
)
OTHER_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqTxd43gyp8IOEto2LdIfjRQrIbsd4SXZkLW6jDutdhXSJCWHw8REntlo7aNDthvj+y7GjUuFDb/R"
    "1NGe1OPzpA=="
)
SIGNATURE = "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM="
TIMESTAMP = "1600112502"
DROPPED = {
    "email": "hello@world.com",
    "event": "dropped",
    "reason": "Bounced Address",
    "sg_event_id": "ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",
    "sg_message_id": "LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",
    "smtp-id": "<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>",
    "timestamp": 1600112492,
}
BODY = json.dumps([DROPPED], sort_keys=True, separators=(",", ":")).encode() + b"\r\n"

# Of twilio-python's own tests.
TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FORM = {
    "CallSid": "CA1234567890ABCDE",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
    "Caller": "+14158675309",
}
TWILIO_SIGNATURE = "RSOYDt4T1cUTdK1PDd93/VVr8B8="
JSON_BODY = b'{"property": "value", "boolean": true}'
JSON_URL = f"{URL}&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"

ATTEMPT = UUID("0198c0de-0000-7000-8000-000000000001")
SID = "SM" + "0" * 32


def test_sendgrids_own_vector_passes() -> None:
    assert verify_sendgrid(KEY, SIGNATURE, TIMESTAMP, BODY)


def test_a_key_may_be_pem_too() -> None:
    pem = sendgrid_key(KEY).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert verify_sendgrid(pem, SIGNATURE, TIMESTAMP, BODY)


@pytest.mark.parametrize(
    ("key", "signature", "timestamp", "body"),
    [
        (OTHER_KEY, SIGNATURE, TIMESTAMP, BODY),
        (KEY, SIGNATURE, TIMESTAMP, BODY.rstrip()),
        (KEY, SIGNATURE, TIMESTAMP, b"payload"),
        (KEY, SIGNATURE, "1600112503", BODY),
        (KEY, SIGNATURE, "", TIMESTAMP.encode() + BODY[1:]),
        (KEY, SIGNATURE[:-4], TIMESTAMP, BODY),
        (KEY, "", TIMESTAMP, BODY),
        (KEY, "not base64 at all", TIMESTAMP, BODY),
        (KEY, "ümlaut", TIMESTAMP, BODY),
        (KEY, base64.b64encode(b"\0" * 64).decode(), TIMESTAMP, BODY),
    ],
)
def test_what_sendgrid_did_not_sign_does_not_pass(key: str, signature: str, timestamp: str, body: bytes) -> None:
    assert not verify_sendgrid(key, signature, timestamp, body)


def test_a_key_that_is_none_is_said() -> None:
    for key in ("", "nonsense", base64.b64encode(b"nonsense").decode(), _public(ec.SECP384R1())):
        with pytest.raises(KeyUnusable):
            sendgrid_key(key)


@given(st.binary(max_size=500), st.integers(0, 2**33), st.data())
def test_each_changed_byte_breaks_sendgrids_signature(body: bytes, at: int, data: st.DataObject) -> None:
    signature = base64.b64encode(_PRIVATE.sign(str(at).encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
    assert verify_sendgrid(_PUBLIC, signature, str(at), body)
    place = data.draw(st.integers(0, len(body)))
    assert not verify_sendgrid(_PUBLIC, signature, str(at), body[:place] + b"!" + body[place:])


@pytest.mark.parametrize(
    ("url", "signature"),
    [
        (URL, TWILIO_SIGNATURE),
        (URL.replace(".com", ".com:1234"), TWILIO_SIGNATURE),
        (URL.replace(".com", ".com:1234").replace("https", "http"), "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        (URL, "kvajT1Ptam85bY51eRf/AJRuM3w="),
        (URL.replace("https", "http"), "0ZXoZLH/DfblKGATFgpif+LLRf4="),
    ],
)
def test_twilios_own_vectors_pass(url: str, signature: str) -> None:
    assert verify_twilio(TOKEN, signature, url, FORM)
    assert verify_twilio(TOKEN, signature, url, list(FORM.items())[::-1])


def test_twilios_vector_of_a_field_that_comes_twice() -> None:
    pairs = [("Sid", "CA123"), ("SidAccount", "AC123"), ("Digits", "5678"), ("Digits", "1234"), ("Digits", "1234")]
    assert verify_twilio(TOKEN, "IK+Dwps556ElfBT0I3Rgjkr1wJU=", URL, pairs)


def test_twilios_vector_of_a_body_that_is_no_form() -> None:
    signature = "a9nBmqA0ju/hNViExpshrM61xv4="
    assert verify_twilio(TOKEN, signature, JSON_URL, JSON_BODY)
    assert not verify_twilio(TOKEN, signature, JSON_URL, JSON_BODY + b" ")
    # Without its hash in the address nothing of a body is signed.
    assert not verify_twilio(TOKEN, TWILIO_SIGNATURE, URL, b"")


@pytest.mark.parametrize(
    ("token", "signature", "url", "form"),
    [
        ("12346", TWILIO_SIGNATURE, URL, FORM),
        ("", TWILIO_SIGNATURE, URL, FORM),
        (TOKEN, "", URL, FORM),
        (TOKEN, "ümlaut", URL, FORM),
        (TOKEN, TWILIO_SIGNATURE.lower(), URL, FORM),
        (TOKEN, TWILIO_SIGNATURE, URL.replace("foo=1", "foo=2"), FORM),
        (TOKEN, TWILIO_SIGNATURE, URL.replace("https", "http"), FORM),
        (TOKEN, TWILIO_SIGNATURE, "https://mycompany.com:x/", FORM),
        (TOKEN, TWILIO_SIGNATURE, URL, {**FORM, "Digits": "12345"}),
        (TOKEN, TWILIO_SIGNATURE, URL, {**FORM, "More": "1"}),
        (TOKEN, TWILIO_SIGNATURE, URL, {}),
    ],
)
def test_what_twilio_did_not_sign_does_not_pass(token: str, signature: str, url: str, form: dict[str, str]) -> None:
    assert not verify_twilio(token, signature, url, form)


def test_of_the_algorithms_only_twilios_two_are_known() -> None:
    assert verify_twilio(TOKEN, TWILIO_SIGNATURE, URL, FORM, settings="key=k,algorithm=HMAC_SHA1")
    assert not verify_twilio(TOKEN, TWILIO_SIGNATURE, URL, FORM, settings="key=k,algorithm=HMAC_SHA256")
    assert not verify_twilio(TOKEN, TWILIO_SIGNATURE, URL, FORM, settings="key=k,algorithm=NONE")


def test_an_event_is_read_with_what_it_is_about() -> None:
    (receipt,) = sendgrid_receipts(BODY)
    assert receipt.event_id == DROPPED["sg_event_id"]
    assert (receipt.status, receipt.said) == ("undelivered", "dropped")
    assert receipt.reference == "LRzXl_NHStOGhQ4kofSm_A"
    assert receipt.at == datetime(2020, 9, 14, 19, 41, 32, tzinfo=UTC)
    assert receipt.attempt_id is None
    assert receipt.detail == "Bounced Address"


@pytest.mark.parametrize(
    ("event", "status", "said"),
    [
        ({"event": "processed"}, "accepted", "processed"),
        ({"event": "deferred", "response": "451 later", "attempt": "5"}, "accepted", "deferred"),
        ({"event": "delivered", "response": "250 OK"}, "delivered", "delivered"),
        ({"event": "bounce", "type": "bounce", "status": "5.1.1"}, "undelivered", "bounced"),
        ({"event": "bounce", "type": "blocked"}, "undelivered", "blocked"),
        ({"event": "bounce"}, "undelivered", "bounce"),
    ],
)
def test_each_event_has_a_standing(event: dict[str, Any], status: Standing, said: str) -> None:
    (receipt,) = _receipts({**event, SENDGRID_ATTEMPT: str(ATTEMPT)})
    assert (receipt.status, receipt.said, receipt.attempt_id) == (status, said, ATTEMPT)


def test_what_people_do_with_a_mail_is_no_receipt() -> None:
    for event in ("open", "click", "spamreport", "unsubscribe", "group_resubscribe", "something_new"):
        assert not _receipts({"event": event})
    assert not _receipts({}, {"event": ["bounce"]})


def test_a_receipt_keeps_no_address() -> None:
    (receipt,) = _receipts(
        {
            "event": "bounce",
            "type": "bounce",
            "status": "5.1.1",
            "reason": "550 5.1.1 <max.muster@example.com>: no such user;\r\n see https://example.com/x?a=b "
            + "y" * 999,
        }
    )
    assert receipt.detail.startswith("550 5.1.1 (address): no such user; see (address) yyy")
    assert len(receipt.detail) == 300
    assert receipt.code == "5.1.1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b"[" * 100_000,
        b'[{"event": "bounce"}]',
        b'[{"event": "bounce", "sg_event_id": 7}]',
        json.dumps([{"event": "bounce", "sg_event_id": "x" * 201}]).encode(),
        json.dumps([{}] * (EVENTS_MAX + 1)).encode(),
    ],
)
def test_a_body_that_is_not_as_documented_is_said(body: bytes) -> None:
    with pytest.raises(ReceiptsUnreadable):
        sendgrid_receipts(body)


def test_odd_fields_of_an_event_do_no_harm() -> None:
    (receipt,) = _receipts(
        {"event": "delivered", "timestamp": 10**30, "sg_message_id": 7, SENDGRID_ATTEMPT: "nonsense", "response": [1]}
    )
    assert (receipt.at, receipt.reference, receipt.attempt_id, receipt.detail) == (None, None, None, "")
    (receipt,) = _receipts({"event": "delivered", "timestamp": "soon", SENDGRID_ATTEMPT: {"a": 1}})
    assert (receipt.at, receipt.attempt_id) == (None, None)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("accepted", "accepted"),
        ("scheduled", "accepted"),
        ("queued", "accepted"),
        ("sending", "accepted"),
        ("sent", "sent"),
        ("partially_delivered", "sent"),
        ("delivered", "delivered"),
        ("read", "delivered"),
        ("undelivered", "undelivered"),
        ("failed", "undelivered"),
        ("canceled", "undelivered"),
    ],
)
def test_each_of_twilios_statuses_has_a_standing(said: str, status: Standing) -> None:
    receipt = twilio_receipt({"MessageSid": SID, "MessageStatus": said}, {"attempt": str(ATTEMPT)})
    assert receipt is not None
    assert (receipt.status, receipt.said, receipt.reference, receipt.attempt_id) == (status, said, SID, ATTEMPT)
    # One status of one message is said once, whatever comes along with it.
    again = twilio_receipt({"SmsSid": SID, "SmsStatus": said, "RawDlrDoneDate": "2611261200"}, {})
    assert again is not None
    assert again.event_id == receipt.event_id


def test_a_failure_is_said_in_words() -> None:
    form = {"MessageSid": SID, "MessageStatus": "undelivered", "ErrorCode": "30003"}
    receipt = twilio_receipt(form, {})
    assert receipt is not None
    assert (receipt.code, receipt.detail) == ("30003", "the handset could not be reached")
    receipt = twilio_receipt({**form, "ErrorCode": "1", "ErrorMessage": "no +49 170 1234567"}, {"attempt": "x"})
    assert receipt is not None
    assert (receipt.code, receipt.detail, receipt.attempt_id) == ("1", "no (number)", None)


def test_an_incoming_status_or_one_unknown_is_no_receipt() -> None:
    for said in ("receiving", "received", "something_new"):
        assert twilio_receipt({"MessageSid": SID, "MessageStatus": said}, {}) is None
    for form in (
        {},
        {"MessageSid": SID},
        {"MessageStatus": "sent"},
        {"MessageSid": "x" * 201, "MessageStatus": "sent"},
    ):
        with pytest.raises(ReceiptsUnreadable):
            twilio_receipt(form, {})


def test_a_reply_is_read() -> None:
    reply = twilio_reply({"MessageSid": SID, "From": "+15005550001", "To": "+15005550006", "Body": " ack 4711\n"})
    assert (reply.reference, reply.sender, reply.recipient, reply.text) == (
        SID,
        "+15005550001",
        "+15005550006",
        " ack 4711\n",
    )
    assert reply.opted_out is None
    assert twilio_reply({"MessageSid": SID, "From": "+1", "OptOutType": "STOP"}).opted_out is True
    assert twilio_reply({"MessageSid": SID, "From": "+1", "OptOutType": "START"}).opted_out is False
    with pytest.raises(ReceiptsUnreadable):
        twilio_reply({"MessageSid": SID})


def _receipts(*events: dict[str, Any]) -> Any:
    return sendgrid_receipts(json.dumps([{"sg_event_id": "an id", **event} for event in events]).encode())


def _public(curve: ec.EllipticCurve) -> str:
    public = ec.generate_private_key(curve).public_key()
    return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


_PRIVATE = ec.generate_private_key(ec.SECP256R1())
_PUBLIC = base64.b64encode(_PRIVATE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
