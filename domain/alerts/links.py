"""Signed links that acknowledge an alert, and the short code that does so in an answer.

A link names the alert and the delivery that carried it, so that it is known who took note. The alert's own key signs:
no key of the house is in play, and a link is worth nothing for any other alert.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

KEY_BYTES: Final = 32
_MAC_BYTES: Final = 13
_CODE_CHARACTERS: Final = 4
#: Without what is misread: 0 O, 1 I L, 2 Z, 5 S, 8 B.
_ALPHABET: Final = "34679ACDEFGHJKMNPQRTUVWXY"
_REPLY: Final = re.compile(r"\s*(?:ok|okay|ack|yes|ja|gut)\b\W*([A-Za-z0-9]{4})?\s*\W*\Z", re.IGNORECASE)


class Link(NamedTuple):
    """What a link says before its signature is checked."""

    notification_id: UUID
    delivery: int
    mac: bytes


def token(key: bytes, notification_id: UUID, delivery: int) -> str:
    """The 40 characters of a link; ``delivery`` is counted from 1, up to 255."""
    said = notification_id.bytes + min(delivery, 255).to_bytes(1)
    return base64.urlsafe_b64encode(said + _mac(key, said)).decode()


def read(text: str) -> Link | None:
    """What a token says; None when it is none of ours."""
    try:
        raw = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != 16 + 1 + _MAC_BYTES:
        return None
    return Link(UUID(bytes=raw[:16]), raw[16], raw[17:])


def is_signed(link: Link, key: bytes) -> bool:
    """Whether the alert's key signed it."""
    said = link.notification_id.bytes + link.delivery.to_bytes(1)
    return hmac.compare_digest(link.mac, _mac(key, said))


def code(key: bytes) -> str:
    """What names the alert in an answer to a text message."""
    number = int.from_bytes(sha256(b"holdfast alert code\0" + key).digest()[:8])
    letters = []
    for _ in range(_CODE_CHARACTERS):
        number, letter = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[letter])
    return "".join(letters)


def read_reply(text: str) -> tuple[bool, str | None]:
    """Whether an answer takes note, and the code that it names, if it names one."""
    found = _REPLY.match(text)
    if found is None:
        return False, None
    return True, None if found[1] is None else found[1].upper()


def _mac(key: bytes, said: bytes) -> bytes:
    return hmac.digest(key, b"holdfast alert link 1\0" + said, "sha256")[:_MAC_BYTES]
