from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Refusal
from domain.identity import (
    Principal,
    Scope,
    acting_user,
    check_grant,
    has_valid_checksum,
    hash_key,
    make_key,
    require_scope,
)

SERVICE = Principal(UUID(int=1), UUID(int=2), frozenset({Scope.ESCROWS_READ, Scope.KEYS_WRITE}))
USER = Principal(UUID(int=1), UUID(int=3), frozenset(Scope), "beate")

secrets = st.binary(min_size=20, max_size=20)


@given(secrets)
def test_a_key_is_always_equally_long_and_checks_out(random: bytes) -> None:
    key = make_key(random)
    assert key.startswith("hf_")
    assert len(key) == 36
    assert key[3:].isalnum()
    assert has_valid_checksum(key)
    assert len(hash_key(key)) == 32


@given(secrets, secrets)
def test_different_secrets_make_different_keys(one: bytes, other: bytes) -> None:
    assert (make_key(one) == make_key(other)) == (one == other)


@given(secrets, st.integers(0, 35), st.sampled_from("0aZ_ -é"))
def test_one_wrong_character_is_noticed(random: bytes, index: int, character: str) -> None:
    key = make_key(random)
    typo = key[:index] + character + key[index + 1 :]
    assert has_valid_checksum(typo) == (typo == key)


@pytest.mark.parametrize("text", ["", "hf_", "hf_" + "0" * 33, "sk_" + "0" * 33, "\ud800", make_key(bytes(20)) + "\n"])
def test_what_is_no_key(text: str) -> None:
    assert not has_valid_checksum(text)
    assert len(hash_key(text)) == 32


def test_the_first_key_ever_still_checks_out() -> None:
    assert make_key(bytes(range(20))) == "hf_0029sS3yqsuDyR1vGFhTuuRAq1b4WuyDY"


def test_a_key_takes_twenty_random_bytes() -> None:
    with pytest.raises(ValueError, match="20 random bytes"):
        make_key(b"")


def test_scopes() -> None:
    require_scope(SERVICE, Scope.ESCROWS_READ)
    assert refused(require_scope, SERVICE, Scope.ESCROWS_WRITE).code == "scope_missing"


def test_a_service_key_names_its_actor() -> None:
    assert acting_user(SERVICE, "simon") == "simon"
    for named in (None, ""):
        refusal = refused(acting_user, SERVICE, named)
        assert (refusal.code, refusal.field) == ("actor_required", "actor")


def test_a_user_key_acts_as_itself() -> None:
    assert acting_user(USER, None) == acting_user(USER, "beate") == "beate"
    for named in ("simon", ""):
        refusal = refused(acting_user, USER, named)
        assert (refusal.code, refusal.field) == ("actor_not_allowed", "actor")


def test_a_key_grants_no_more_than_it_has() -> None:
    check_grant(SERVICE, [Scope.ESCROWS_READ], None)
    check_grant(SERVICE, SERVICE.scopes, "simon")
    assert refused(check_grant, SERVICE, [Scope.LEDGER_READ], None).code == "scope_not_grantable"
    assert refused(check_grant, SERVICE, [], None).code == "scopes_required"
    assert refused(check_grant, SERVICE, [Scope.ESCROWS_READ], "system:fees").code == "user_id_invalid"
    assert refused(check_grant, USER, [Scope.ESCROWS_READ], "beate").code == "user_key_cannot_grant"


def refused(rule: Callable[..., object], *arguments: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        rule(*arguments)
    return caught.value
