"""What an operator may set."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from db.ids import new_id
from domain import ledger
from domain.controls import FROZEN, Freeze, FreezeScope, check_free, check_lift, check_limits, check_subject
from domain.errors import Refusal

T0 = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
STANDING = Freeze(new_id(), FreezeScope.ACCOUNT, "alice", "a suspicion", T0)


def test_a_freeze_stands_until_it_is_lifted() -> None:
    lifted = replace(STANDING, lifted_at=T0, lift_reason="nothing")
    assert STANDING.active
    assert not lifted.active
    check_free(None)
    check_lift(STANDING)
    with pytest.raises(Refusal, match="already_frozen"):
        check_free(STANDING)
    with pytest.raises(Refusal, match="freeze_lifted"):
        check_lift(lifted)


@pytest.mark.parametrize(
    ("scope", "ref", "code"),
    [
        (FreezeScope.TENANT, "alice", "freeze_ref_unexpected"),
        (FreezeScope.ACCOUNT, None, "freeze_ref_required"),
        (FreezeScope.ASSET, None, "freeze_ref_required"),
        (FreezeScope.ACCOUNT, "system:fees", "account_ref_invalid"),
    ],
)
def test_what_cannot_be_frozen(scope: FreezeScope, ref: str | None, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_subject(scope, ref)
    assert (refused.value.code, refused.value.field) == (code, "ref")


def test_what_can_be_frozen() -> None:
    check_subject(FreezeScope.TENANT, None)
    check_subject(FreezeScope.ACCOUNT, "alice")
    check_subject(FreezeScope.ASSET, "USDC")


def test_limits_leave_room() -> None:
    check_limits(None, 0)
    check_limits(5, None)
    check_limits(5, 5)
    with pytest.raises(Refusal) as refused:
        check_limits(6, 5)
    assert refused.value.code == "limits_contradictory"


def test_the_codes_of_frozen_things_are_the_ledgers() -> None:
    assert {code for code in ledger.CODES if code.endswith("_frozen")} == FROZEN
