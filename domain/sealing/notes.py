"""Checkpoints: what a log's tree was at a size, as a signed note.

The form is C2SP's, so that other people's tools read and co-sign it: c2sp.org/signed-note (text, blank line, signature
lines; Ed25519 keys are type 1) and c2sp.org/tlog-checkpoint (origin, size, root).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from domain.sealing.merkle import HASH_BYTES

Sign = Callable[[bytes], bytes]
#: Whether ``(public key, signature, message)`` belong together.
Verify = Callable[[bytes, bytes, bytes], bool]

_ED25519: Final = b"\x01"
_KEY_BYTES: Final = 32
_ID_BYTES: Final = 4
_SIGNATURES_MAX: Final = 16
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_NAME: Final = re.compile(r"[^\s+]+")


class NoteInvalid(ValueError):
    """A text is not a checkpoint, or nobody that we know signed it; the message says which."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The root over the first ``size`` batches of the log ``origin``."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Who may sign: a name without spaces and plus signs, and an Ed25519 public key of 32 bytes."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.public) != _KEY_BYTES:
            raise NoteInvalid(f"{self.name!r} with {len(self.public)} bytes is no verifier key")

    @property
    def key_id(self) -> bytes:
        """The first bytes of each of its signatures."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        """``name+id+key``, the usual way to hand a key on."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"


def sign(text: str, key: VerifierKey, signer: Sign) -> str:
    """The note: ``text``, which ends in a newline, signed by the key's other half."""
    signature = base64.b64encode(key.key_id + signer(text.encode())).decode()
    return f"{text}\n— {key.name} {signature}\n"


def opened(note: str, key: VerifierKey, verify: Verify) -> str:
    """The text of a note that ``key`` signed; raises ``NoteInvalid`` for any other. Other signatures are ignored."""
    text, blank, rest = note.rpartition("\n\n")
    lines = rest.split("\n")
    if not blank or lines.pop() != "" or not 0 < len(lines) <= _SIGNATURES_MAX:
        raise NoteInvalid("this is not a signed note")
    text += "\n"
    known = False
    for line in lines:
        dash, _, named = line.partition(" ")
        name, _, encoded = named.partition(" ")
        signature = _decoded(encoded)
        if dash != "—" or not _NAME.fullmatch(name) or len(signature) <= _ID_BYTES:
            raise NoteInvalid("this is not a signed note")
        if name == key.name and signature[:_ID_BYTES] == key.key_id:
            if not verify(key.public, signature[_ID_BYTES:], text.encode()):
                raise NoteInvalid(f"the signature of {name} does not belong to this text")
            known = True
    if not known:
        raise NoteInvalid(f"{key.name} with the key {key.key_id.hex()} did not sign this")
    return text


def read(note: str, public: bytes, verify: Verify) -> Checkpoint:
    """The checkpoint in a note that the log itself signed: its key bears the log's name. Raises ``NoteInvalid``."""
    origin = note.partition("\n")[0]
    lines = opened(note, VerifierKey(origin, public), verify).split("\n")
    if len(lines) != 4 or not _SIZE.fullmatch(lines[1]):
        raise NoteInvalid("this is not a checkpoint")
    root = _decoded(lines[2])
    if len(root) != HASH_BYTES:
        raise NoteInvalid("this is not a checkpoint")
    return Checkpoint(origin, int(lines[1]), root)


def _decoded(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if base64.b64encode(raw).decode() == text else b""
