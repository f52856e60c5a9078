"""API keys: what they look like, what they may do, and for whom.

A key is ``hf_``, 27 characters of secret and 6 of checksum. The checksum tells a typo or a foreign string from a key
without asking the database, and lets secret scanners recognise a leaked key; it protects nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

from domain.errors import Refusal
from domain.ids import USER_ID_RULE, is_user_id

KEY_PREFIX: Final = "hf_"
KEY_RANDOM_BYTES: Final = 20

CODES: Final = {
    "scope_missing": "the key lacks the scope that this needs",
    "actor_required": "a service key names in each command the user that it acts for",
    "actor_not_allowed": "a key that is bound to a user acts for that user only",
    "scope_not_grantable": "a key grants only scopes that it has itself",
    "scopes_required": "a key has at least one scope",
    "user_key_cannot_grant": "a key that is bound to a user makes no keys",
    "user_id_invalid": USER_ID_RULE,
}

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARACTERS = 27  # 62**27 > 2**160
_CHECKSUM_CHARACTERS = 6  # 62**6 > 2**32
_KEY = re.compile(rf"{KEY_PREFIX}[0-9A-Za-z]{{{_SECRET_CHARACTERS + _CHECKSUM_CHARACTERS}}}\Z", re.ASCII)


class Scope(StrEnum):
    """What a key may be used for."""

    ESCROWS_READ = "escrows:read"
    ESCROWS_WRITE = "escrows:write"
    LEDGER_READ = "ledger:read"
    LEDGER_WRITE = "ledger:write"
    EVENTS_READ = "events:read"
    COMMANDS_READ = "commands:read"
    COMMANDS_WRITE = "commands:write"
    CONTROLS_WRITE = "controls:write"
    PRICES_READ = "prices:read"
    PRICES_WRITE = "prices:write"
    MARGIN_READ = "margin:read"
    MARGIN_WRITE = "margin:write"
    ALERTS_READ = "alerts:read"
    ALERTS_WRITE = "alerts:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    CHAIN_READ = "chain:read"
    CHAIN_WRITE = "chain:write"
    PLATFORM_WRITE = "platform:write"
    KEYS_WRITE = "keys:write"
    TENANTS_WRITE = "tenants:write"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling. ``user_id`` is None for a tenant's service key, else the one user that the key is bound to."""

    tenant_id: UUID
    key_id: UUID
    scopes: frozenset[Scope]
    user_id: str | None = None


def make_key(random: bytes) -> str:
    """The API key over ``KEY_RANDOM_BYTES`` random bytes, always equally long."""
    if len(random) != KEY_RANDOM_BYTES:
        raise ValueError(f"a key takes {KEY_RANDOM_BYTES} random bytes, not {len(random)}")
    body = KEY_PREFIX + _base62(int.from_bytes(random), _SECRET_CHARACTERS)
    return body + _checksum(body)


def has_valid_checksum(key: str) -> bool:
    """Whether ``key`` has the form of a key and no typo in it. Says nothing about whether it exists."""
    return _KEY.match(key) is not None and key[-_CHECKSUM_CHARACTERS:] == _checksum(key[:-_CHECKSUM_CHARACTERS])


def hash_key(key: str) -> bytes:
    """SHA-256 of a key, the only form in which it is stored: 160 random bits need no salt and no slow hash."""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def require_scope(principal: Principal, scope: Scope) -> None:
    """Refuses with ``scope_missing`` unless the key has ``scope``."""
    if scope not in principal.scopes:
        raise Refusal("scope_missing", f"this needs a key with the scope {scope}")


def acting_user(principal: Principal, named: str | None) -> str:
    """The user that a command speaks for, ``named`` being what the request says."""
    if principal.user_id is None:
        if not named:
            raise Refusal("actor_required", "a service key names the user that it acts for", field="actor")
        return named
    if named is not None and named != principal.user_id:
        raise Refusal("actor_not_allowed", "this key acts for its own user only", field="actor")
    return principal.user_id


def check_grant(granter: Principal, scopes: Iterable[Scope], user_id: str | None) -> None:
    """Refuses a new key that ``granter`` may not make; ``user_id`` is whom it would be bound to, None for nobody."""
    wanted = frozenset(scopes)
    if granter.user_id is not None:
        raise Refusal("user_key_cannot_grant", "a key that is bound to a user makes no keys")
    if not wanted:
        raise Refusal("scopes_required", "name at least one scope", field="scopes")
    if missing := sorted(wanted - granter.scopes):
        raise Refusal("scope_not_grantable", f"this key has no {missing[0]} itself", field="scopes")
    if user_id is not None and not is_user_id(user_id):
        raise Refusal("user_id_invalid", "this cannot be a user's id", field="user_id")


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_CHARACTERS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
