"""The rules of settlement commands: kinds, fields, fingerprints, turns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Refusal
from domain.settlement import Command, CommandKind, check, check_asset, in_turn, kind_of

ESCROW = UUID("0198a5a0-0000-7000-8000-000000000000")
DEPOSIT = Command("c", CommandKind.DEPOSIT, "alice", "USDC", 5)
TRANSFER = Command("c", CommandKind.TRANSFER, "alice", "USDC", 5, counterparty_ref="bob")
FUND = Command("c", CommandKind.ESCROW_FUND, "alice", "USDC", 5, escrow_id=ESCROW)


def test_a_kind_that_is_left_out() -> None:
    assert kind_of(None, ESCROW) is CommandKind.ESCROW_FUND
    assert kind_of(None, None) is CommandKind.DEPOSIT
    assert kind_of(CommandKind.WITHDRAWAL, None) is CommandKind.WITHDRAWAL


@pytest.mark.parametrize("good", [DEPOSIT, TRANSFER, FUND, replace(FUND, milestones=(1, 2))])
def test_what_can_be_carried_out(good: Command) -> None:
    check(good)


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        (replace(DEPOSIT, amount_minor=0), "amount_invalid", "amount"),
        (replace(DEPOSIT, account_ref="system:fees"), "account_ref_invalid", "account_ref"),
        (replace(TRANSFER, counterparty_ref="system:fees"), "account_ref_invalid", "counterparty_ref"),
        (replace(TRANSFER, counterparty_ref=None), "required", "counterparty_ref"),
        (replace(TRANSFER, counterparty_ref="alice"), "counterparty_same", "counterparty_ref"),
        (replace(DEPOSIT, escrow_id=ESCROW), "field_not_for_kind", "escrow_id"),
        (replace(DEPOSIT, milestones=(1,)), "field_not_for_kind", "milestones"),
        (replace(FUND, escrow_id=None), "required", "escrow_id"),
        (replace(FUND, description="x"), "field_not_for_kind", "description"),
    ],
)
def test_what_cannot(bad: Command, code: str, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        check(bad)
    assert (refused.value.code, refused.value.field) == (code, field)


def test_an_escrows_asset() -> None:
    check_asset("USDC", "USDC")
    with pytest.raises(Refusal, match="asset_mismatch"):
        check_asset("ETH", "USDC")


@pytest.mark.parametrize(
    "change",
    [{"kind": CommandKind.WITHDRAWAL}, {"account_ref": "bob"}, {"amount_minor": 6}, {"description": "x"}],
)
def test_a_fingerprint_tells_contents_apart(change: dict[str, Any]) -> None:
    assert replace(DEPOSIT, **change).fingerprint() != DEPOSIT.fingerprint()
    assert replace(DEPOSIT, command_id="other").fingerprint() == DEPOSIT.fingerprint()


def test_a_fingerprint_is_for_ever() -> None:
    """It stands in rows: what makes another one of the same content would answer old commands with a conflict."""
    assert DEPOSIT.fingerprint().hex() == "314f4d97cec3af1c7979d2611d250f9c5675a03b4a7d87271f3c928645fdd257"


@dataclass(frozen=True)
class Standing:
    place: int
    keys: tuple[object, ...]
    waits: bool


lanes = st.lists(st.tuples(st.sets(st.sampled_from("abcd"), min_size=1, max_size=2), st.booleans()), max_size=30)


@given(lanes, st.integers(1, 7))
def test_nobody_overtakes_who_shares_a_key(given_lane: list[tuple[set[str], bool]], page: int) -> None:
    lane = [Standing(place, tuple(keys), waits) for place, (keys, waits) in enumerate(given_lane)]
    taken = in_turn(lane, set())
    left = [one for one in lane if one not in taken]
    for one in taken:
        assert not one.waits
        assert not any(before.place < one.place and set(before.keys) & set(one.keys) for before in left)
    for one in left:
        assert one.waits or any(before.place < one.place and set(before.keys) & set(one.keys) for before in left)
    held: set[object] = set()
    pages = [in_turn(lane[start : start + page], held) for start in range(0, len(lane), page)]
    assert [one for each in pages for one in each] == taken
