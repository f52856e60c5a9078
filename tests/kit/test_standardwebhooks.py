"""Standard Webhooks: the published vectors, and receivers that others wrote."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from kit.clock import now
from kit.standardwebhooks import (
    KeyMalformed,
    PrivateKey,
    PublicKey,
    SharedSecret,
    SignatureRefused,
    Signer,
    Verifier,
    signed,
    verify,
)
from tests.npm.programs import FOLDER, node

#: Secret, id, time, body, signature: of the standard's own libraries (seven of them), and of its Rust library.
VECTORS = (
    (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
    (
        "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1649367553,
        b'{"email":"test@example.com","username":"test_user"}',
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    ),
)
#: The example of the standard's text, with the keys of Svix's tests.
PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
ASYMMETRIC = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="

IDS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_-:/", min_size=1, max_size=60)
BODIES = st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5).map(
    lambda it: json.dumps(it).encode()
)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize(("secret", "message_id", "seconds", "body", "signature"), VECTORS)
def test_published_vectors(secret: str, message_id: str, seconds: int, body: bytes, signature: str) -> None:
    key = SharedSecret.parse(secret)
    headers = signed(message_id, at(seconds), body, [key])
    assert headers == {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature,
    }
    assert verify(headers, body, [key], now=at(seconds)) == message_id


def test_published_vector_of_the_asymmetric_kind() -> None:
    _, message_id, seconds, body, _ = VECTORS[0]
    private, public = PrivateKey.parse(PRIVATE), PublicKey.parse(PUBLIC)
    assert private.public == public
    assert (private.text, public.text) == (PRIVATE, PUBLIC)
    headers = signed(message_id, at(seconds), body, [private])
    assert headers["webhook-signature"] == ASYMMETRIC
    assert verify(headers, body, [public], now=at(seconds)) == message_id


@given(message_id=IDS, body=BODIES, old=st.binary(min_size=24, max_size=64), new=st.binary(min_size=24, max_size=64))
def test_the_library_for_python_takes_every_request_with_the_old_secret_and_the_new(
    message_id: str, body: bytes, old: bytes, new: bytes
) -> None:
    secrets = [SharedSecret(new), SharedSecret(old)]
    headers = signed(message_id, now(), body, [*secrets, PrivateKey.parse(PRIVATE)])
    for secret in secrets:
        assert standardwebhooks.Webhook(secret.text).verify(body, headers) == json.loads(body)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SharedSecret(b"somebody else's" * 2).text).verify(body, headers)


@given(message_id=IDS, body=BODIES, key=st.binary(min_size=24, max_size=64))
def test_what_the_library_for_python_signs_is_verified(message_id: str, body: bytes, key: bytes) -> None:
    secret, instant = SharedSecret(key), now()
    theirs = standardwebhooks.Webhook(secret.text).sign(message_id, instant, body.decode())
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(instant.timestamp())),
        "webhook-signature": theirs,
    }
    assert verify(headers, body, [secret], now=instant) == message_id
    assert signed(message_id, instant, body, [secret]) == headers


def test_the_library_for_javascript_takes_our_requests_and_no_others() -> None:
    program = node("standardwebhooks")
    old, new = SharedSecret.generate(), SharedSecret.generate()
    bodies = [b'{"type":"escrow.approved","amount":"1.00"}', '{"name":"Žofie 🔒"}'.encode(), b"[]"]
    asked: list[tuple[SharedSecret, bytes, dict[str, str]]] = []
    for number, body in enumerate(bodies):
        headers = signed(f"msg_{number}", now(), body, [new, old, PrivateKey.generate()])
        asked += [(old, body, headers), (new, body, headers)]
    wrong = [
        (SharedSecret.generate(), bodies[0], asked[0][2]),
        (old, bodies[1], asked[0][2]),
        (old, bodies[0], asked[0][2] | {"webhook-id": "msg_other"}),
        (old, bodies[0], signed("msg_late", now() - timedelta(minutes=6), bodies[0], [old])),
    ]
    lines = "".join(
        json.dumps({"secret": secret.text, "body": base64.b64encode(body).decode(), "headers": headers}) + "\n"
        for secret, body, headers in (*asked, *wrong)
    )
    done = subprocess.run(
        [program, FOLDER / "verify.mjs"], input=lines, capture_output=True, text=True, timeout=60, check=False
    )
    told = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert told[: len(asked)] == ["ok"] * len(asked)
    assert [each.partition(":")[0] for each in told[len(asked) :]] == ["WebhookVerificationError"] * len(wrong)


@pytest.mark.parametrize("zone", [timezone(timedelta(hours=9)), timezone(timedelta(hours=-3, minutes=-30))])
def test_the_instant_is_the_same_in_every_zone(zone: timezone) -> None:
    secret = SharedSecret(bytes(24))
    instant = at(1_700_000_000)
    assert signed("m", instant.astimezone(zone), b"", [secret]) == signed("m", instant, b"", [secret])
    with pytest.raises(ValueError, match="zone"):
        signed("m", instant.replace(tzinfo=None), b"", [secret])


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "a\n", "é", "a" * 257])
def test_ids_that_cannot_be_signed(message_id: str) -> None:
    with pytest.raises(ValueError, match="id"):
        signed(message_id, now(), b"", [SharedSecret.generate()])


def test_without_keys_nothing_is_signed() -> None:
    with pytest.raises(ValueError, match="key"):
        signed("m", now(), b"", [])


def test_rotation_whoever_has_either_key_is_satisfied() -> None:
    old, new, house = SharedSecret.generate(), SharedSecret.generate(), PrivateKey.generate()
    headers = signed("m", at(1_000), b"x", [new, old, house])
    for keys in ([old], [new], [house.public], [SharedSecret.generate(), old]):
        assert verify(headers, b"x", keys, now=at(1_000)) == "m"
    for keys in ([SharedSecret.generate()], [PrivateKey.generate().public], []):
        with pytest.raises(SignatureRefused):
            verify(headers, b"x", keys, now=at(1_000))


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-id": "n"},
        {"webhook-id": ""},
        {"webhook-id": "m.1"},
        {"webhook-timestamp": "1001"},
        {"webhook-timestamp": "1000.0"},
        {"webhook-timestamp": " 1000"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-timestamp": "١٢"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,%%%"},
        {"webhook-signature": "v1,é"},
        {"webhook-signature": "v2," + "A" * 43 + "="},
        {"webhook-signature": "," * 1_000},
    ],
)
def test_whatever_a_request_holds_it_is_verified_or_refused(changes: dict[str, str]) -> None:
    secret, house = SharedSecret.generate(), PrivateKey.generate()
    headers = signed("m", at(1_000), b"x", [secret, house]) | changes
    with pytest.raises(SignatureRefused):
        verify(headers, b"x", [secret, house.public], now=at(1_000))
    with pytest.raises(SignatureRefused):
        verify({}, b"x", [secret], now=at(1_000))


def test_one_kind_does_not_pass_for_the_other() -> None:
    secret, house = SharedSecret.generate(), PrivateKey.generate()
    content = signed("m", at(1_000), b"x", [secret, house])
    one, other = content["webhook-signature"].split(" ")
    swapped = f"v1a,{one.partition(',')[2]} v1,{other.partition(',')[2]}"
    with pytest.raises(SignatureRefused):
        verify(content | {"webhook-signature": swapped}, b"x", [secret, house.public], now=at(1_000))


@pytest.mark.parametrize(("seconds", "fine"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_a_request_is_of_now(seconds: int, fine: bool) -> None:
    secret = SharedSecret.generate()
    headers = signed("m", at(1_000_000), b"x", [secret])
    if fine:
        assert verify(headers, b"x", [secret], now=at(1_000_000 + seconds)) == "m"
    else:
        with pytest.raises(SignatureRefused, match="timestamp"):
            verify(headers, b"x", [secret], now=at(1_000_000 + seconds))


def _of(kind: Any, texts: Sequence[str]) -> list[tuple[Any, str]]:
    return [(kind, text) for text in texts]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *_of(SharedSecret, ["", "whsec_", "whsec_%%%", "whsec_" + "A" * 28, "whsec_" + "A" * 88 + "AAAA", "whsec_é"]),
        *_of(PrivateKey, ["", PRIVATE[5:], PUBLIC, "whsk_AAAA", PRIVATE[:-8] + "AAAAAA==", PRIVATE + "AAAA"]),
        *_of(PublicKey, ["", PUBLIC[5:], PRIVATE, "whpk_AAAA", "whpk_" + "A" * 88]),
    ],
)
def test_keys_that_are_none_are_refused_without_showing_them(kind: Any, text: str) -> None:
    with pytest.raises(KeyMalformed) as refused:
        kind.parse(text)
    assert len(text) < 8 or text[6:] not in str(refused.value)


@pytest.mark.parametrize("kind", [SharedSecret, PrivateKey])
def test_keys_come_back_from_their_text_and_do_not_show_themselves(kind: Any) -> None:
    key = kind.generate()
    assert kind.parse(key.text) == key
    assert kind.generate() != key
    assert key.text[6:30] not in repr(key) + str(key)
    assert repr(key) == f"{kind.__name__}()"


def test_a_private_key_may_be_its_seed_alone() -> None:
    whole = PrivateKey.parse(PRIVATE)
    assert PrivateKey.parse("whsk_" + base64.b64encode(whole.seed).decode()) == whole


def test_keys_are_what_the_functions_take() -> None:
    signers: list[Signer] = [SharedSecret.generate(), PrivateKey.generate()]
    verifiers: list[Verifier] = [SharedSecret.generate(), PrivateKey.generate().public]
    assert (len(signers), len(verifiers)) == (2, 2)
