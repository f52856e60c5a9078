"""What operators set: freezes stop every movement, limits what begins one."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Refusal
from domain.ledger import (
    LIMITED,
    MIRRORED,
    Balance,
    Controls,
    Freezes,
    Leg,
    Limits,
    Posting,
    Pot,
    TransactionKind,
    decide,
    pay_from_hold,
    place_hold,
    transfer,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
ONE, HOLD = UUID(int=1), UUID(int=9)
RICH = {("alice", "ETH"): Balance(100, 50), ("bob", "ETH"): Balance(10)}


def moved(amount_minor: int, kind: TransactionKind = TransactionKind.TRANSFER) -> Posting:
    legs = (Leg("alice", "ETH", Pot.AVAILABLE, -amount_minor), Leg("bob", "ETH", Pot.AVAILABLE, amount_minor))
    return Posting(ONE, kind, legs, AT)


def code(posting: Posting, freezes: Freezes = Freezes(), /, **limits: Limits) -> str | None:  # noqa: B008
    """How a posting ends on ``RICH``; limits are by account."""
    controls = Controls(freezes, {(account, "ETH"): limit for account, limit in limits.items()})
    try:
        decide(RICH, posting, controls)
    except Refusal as refusal:
        return refusal.code
    return None


def test_a_transfer_moves_what_is_available() -> None:
    made = transfer("alice", "bob", "ETH", 100, transaction_id=ONE, effective_at=AT)
    assert decide(RICH, made) == {("alice", "ETH"): Balance(0, 50), ("bob", "ETH"): Balance(110)}
    for source, target, refused in (
        ("alice", "alice", "leg_repeated"),
        ("alice", "system:fees", "account_ref_invalid"),
    ):
        with pytest.raises(Refusal, match=refused):
            transfer(source, target, "ETH", 1, transaction_id=ONE, effective_at=AT)


@pytest.mark.parametrize("kind", TransactionKind)
@pytest.mark.parametrize(
    ("freezes", "refused"),
    [
        (Freezes(tenant=True), "tenant_frozen"),
        (Freezes(accounts=frozenset({"alice"})), "account_frozen"),
        (Freezes(accounts=frozenset({"bob"})), "account_frozen"),
        (Freezes(assets=frozenset({"ETH"})), "asset_frozen"),
        (Freezes(accounts=frozenset({"carol"}), assets=frozenset({"BTC"})), None),
    ],
)
def test_a_freeze_stops_every_movement(freezes: Freezes, refused: str | None, kind: TransactionKind) -> None:
    """But for what moved on a chain already: a freeze there is none of ours to make."""
    assert code(moved(1, kind), freezes) == (None if kind in MIRRORED else refused)


@pytest.mark.parametrize(
    ("amount_minor", "limits", "refused"),
    [
        (40, {"alice": Limits(min_available_minor=60)}, None),
        (41, {"alice": Limits(min_available_minor=60)}, "limit_min_available"),
        (41, {"bob": Limits(min_available_minor=60)}, None),
        (40, {"alice": Limits(max_debit_minor=40)}, None),
        (41, {"alice": Limits(max_debit_minor=40)}, "limit_max_debit"),
        (41, {"bob": Limits(max_debit_minor=40)}, None),
        (40, {"bob": Limits(max_balance_minor=50)}, None),
        (41, {"bob": Limits(max_balance_minor=50)}, "limit_max_balance"),
        (41, {"alice": Limits(max_balance_minor=50)}, None),
        (1, {"alice": Limits(max_debit_minor=0)}, "limit_max_debit"),
    ],
)
def test_limits_bound_the_side_that_they_name(
    amount_minor: int, limits: dict[str, Limits], refused: str | None
) -> None:
    assert code(moved(amount_minor), **limits) == refused


def test_what_is_on_hold_counts_for_the_balance_and_not_for_what_is_available() -> None:
    placed = Posting(ONE, TransactionKind.ESCROW_FUND, place_hold("alice", "ETH", 30, hold_id=HOLD), AT)
    assert code(placed, alice=Limits(max_balance_minor=1)) is None, "the balance does not grow"
    assert code(placed, alice=Limits(min_available_minor=71)) == "limit_min_available"
    assert code(placed, alice=Limits(max_debit_minor=29)) == "limit_max_debit"


@given(
    kind=st.sampled_from([kind for kind in TransactionKind if kind not in LIMITED]),
    limit=st.builds(Limits, *[st.one_of(st.none(), st.integers(0, 200))] * 3),
)
def test_no_limit_stops_the_end_of_something(kind: TransactionKind, limit: Limits) -> None:
    paid = Posting(ONE, kind, pay_from_hold("alice", "ETH", {"bob": 20, "alice": 30}, hold_id=HOLD), AT)
    assert code(paid, alice=limit, bob=limit) is None
