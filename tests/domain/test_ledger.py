from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Refusal
from domain.ledger import (
    SYSTEM_EXTERNAL,
    SYSTEM_FEES,
    Balance,
    Leg,
    Posting,
    Pot,
    TransactionKind,
    check,
    check_account_ref,
    decide,
    deposit,
    merge,
    pay_from_hold,
    place_hold,
    reverse,
    withdrawal,
)
from domain.money import MAX_MINOR

AT = datetime(2026, 1, 1, tzinfo=UTC)
ONE, TWO, HOLD = UUID(int=1), UUID(int=2), UUID(int=9)


def posting(*legs: Leg) -> Posting:
    return Posting(ONE, TransactionKind.ESCROW_FUND, legs, AT)


def free(account: str, amount_minor: int, asset: str = "ETH") -> Leg:
    return Leg(account, asset, Pot.AVAILABLE, amount_minor)


def held(account: str, amount_minor: int, hold_id: UUID | None = HOLD) -> Leg:
    return Leg(account, "ETH", Pot.HELD, amount_minor, hold_id)


def refusal_of(candidate: Posting, balances: dict[tuple[str, str], Balance] | None = None) -> str:
    with pytest.raises(Refusal) as caught:
        decide(balances or {}, candidate)
    return caught.value.code


def test_money_comes_from_outside_and_goes_there() -> None:
    arrived = deposit("beate", "ETH", 5, transaction_id=ONE, effective_at=AT, reference="r")
    assert arrived.legs == (free(SYSTEM_EXTERNAL, -5), free("beate", 5))
    assert (arrived.kind, arrived.reference) == (TransactionKind.DEPOSIT, "r")
    decide({}, arrived)
    left = withdrawal("beate", "ETH", 5, transaction_id=TWO, effective_at=AT)
    decide({("beate", "ETH"): Balance(5)}, left)
    assert refusal_of(left, {("beate", "ETH"): Balance(4, 100)}) == "insufficient_funds"
    assert refusal_of(left, {("beate", "BTC"): Balance(5)}) == "insufficient_funds"


def test_a_reversal_undoes_a_deposit_while_the_money_is_there() -> None:
    arrived = deposit("beate", "ETH", 5, transaction_id=ONE, effective_at=AT)
    undone = reverse(arrived, transaction_id=TWO, effective_at=AT)
    assert (undone.kind, undone.reverses_id) == (TransactionKind.REVERSAL, ONE)
    assert merge((*arrived.legs, *undone.legs)) == ()
    decide({("beate", "ETH"): Balance(5)}, undone)
    assert refusal_of(undone) == "insufficient_funds"
    for kind in (TransactionKind.ESCROW_RELEASE, TransactionKind.REVERSAL):
        with pytest.raises(Refusal, match="not_reversible"):
            reverse(replace(arrived, kind=kind), transaction_id=TWO, effective_at=AT)


def test_a_hold_is_placed_and_paid_out() -> None:
    placed = posting(*place_hold("beate", "ETH", 10, hold_id=HOLD))
    decide({("beate", "ETH"): Balance(10)}, placed)
    assert refusal_of(placed, {("beate", "ETH"): Balance(9)}) == "insufficient_funds"
    paid = posting(*pay_from_hold("beate", "ETH", {"simon": 7, "beate": 2, SYSTEM_FEES: 1, "none": 0}, hold_id=HOLD))
    assert paid.legs == (held("beate", -10), free("simon", 7), free("beate", 2), free(SYSTEM_FEES, 1))
    decide({("beate", "ETH"): Balance(0, 10)}, paid)
    assert refusal_of(paid, {("beate", "ETH"): Balance(100, 9)}) == "hold_exhausted"


def test_only_the_outside_may_owe() -> None:
    fees = posting(free(SYSTEM_FEES, -1), free("beate", 1))
    assert refusal_of(fees) == "insufficient_funds"
    decide({(SYSTEM_FEES, "ETH"): Balance(1)}, fees)
    left = withdrawal("beate", "ETH", 5, transaction_id=ONE, effective_at=AT)
    decide({(SYSTEM_EXTERNAL, "ETH"): Balance(-9), ("beate", "ETH"): Balance(5)}, left)


def test_several_holds_of_one_posting_count_together() -> None:
    both = posting(*merge((*place_hold("beate", "ETH", 6, hold_id=ONE), *place_hold("beate", "ETH", 5, hold_id=TWO))))
    assert both.legs == (free("beate", -11), held("beate", 6, ONE), held("beate", 5, TWO))
    decide({("beate", "ETH"): Balance(11)}, both)
    assert refusal_of(both, {("beate", "ETH"): Balance(10)}) == "insufficient_funds"


def test_nothing_to_pay_makes_no_legs() -> None:
    assert pay_from_hold("beate", "ETH", {"simon": 0}, hold_id=HOLD) == ()


@pytest.mark.parametrize(
    ("legs", "code"),
    [
        ((), "posting_too_short"),
        ((free("a", 1),), "posting_too_short"),
        ((free("a", 1), free("b", -2)), "posting_unbalanced"),
        ((free("a", 1), free("b", -1, "BTC")), "posting_unbalanced"),
        ((free("a", 1), free("b", -1), free("c", 0)), "leg_zero"),
        ((free("a", 1), free("a", -1)), "leg_repeated"),
        ((free("a", 1), free("a", 1), free("b", -2)), "leg_repeated"),
        ((free("a", -1), held("a", 1, None)), "hold_mismatch"),
        ((free("a", -1), replace(free("b", 1), hold_id=HOLD)), "hold_mismatch"),
        ((free("a", MAX_MINOR + 1), free("b", -MAX_MINOR - 1)), "amount_too_large"),
    ],
)
def test_postings_that_no_ledger_takes(legs: tuple[Leg, ...], code: str) -> None:
    assert refusal_of(posting(*legs)) == code


def test_a_posting_may_balance_in_several_assets() -> None:
    check(posting(free("a", 1), free("b", -1), free("a", -2, "BTC"), free("b", 2, "BTC")))


def test_balances_stay_within_what_is_stored() -> None:
    more = deposit("beate", "ETH", 1, transaction_id=ONE, effective_at=AT)
    assert refusal_of(more, {("beate", "ETH"): Balance(MAX_MINOR)}) == "balance_too_large"
    assert refusal_of(more, {(SYSTEM_EXTERNAL, "ETH"): Balance(-MAX_MINOR)}) == "balance_too_large"


@pytest.mark.parametrize(
    ("legs", "balances"),
    [
        ((free("beate", -MAX_MINOR), held("beate", MAX_MINOR)), {("beate", "ETH"): Balance(1, 1)}),
        (
            (free("simon", 2), free("beate", -2)),
            {("simon", "ETH"): Balance(MAX_MINOR - 1), ("beate", "ETH"): Balance(1)},
        ),
    ],
)
def test_money_that_is_missing_is_told_before_what_would_be_too_much(
    legs: tuple[Leg, ...], balances: dict[tuple[str, str], Balance]
) -> None:
    assert refusal_of(posting(*legs), balances) == "insufficient_funds"


@pytest.mark.parametrize(
    ("amount", "code"), [(0, "amount_invalid"), (-1, "amount_invalid"), (MAX_MINOR + 1, "amount_too_large")]
)
def test_amounts_that_are_refused(amount: int, code: str) -> None:
    for build in (deposit, withdrawal):
        with pytest.raises(Refusal, match=code):
            build("beate", "ETH", amount, transaction_id=ONE, effective_at=AT)
    with pytest.raises(Refusal, match=code):
        place_hold("beate", "ETH", amount, hold_id=HOLD)
    if amount:
        with pytest.raises(Refusal, match=code):
            pay_from_hold("beate", "ETH", {"simon": amount}, hold_id=HOLD)


@pytest.mark.parametrize("ref", ["", "system:fees", "a\nb", "x" * 201])
def test_accounts_that_are_not_for_callers(ref: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_account_ref(ref, field="ref")
    assert (caught.value.code, caught.value.field) == ("account_ref_invalid", "ref")
    with pytest.raises(Refusal, match="account_ref_invalid"):
        deposit(ref, "ETH", 1, transaction_id=ONE, effective_at=AT)
    assert check_account_ref("beate") == "beate"


@given(st.data())
def test_what_is_decided_leaves_no_debts_and_creates_no_money(data: st.DataObject) -> None:
    accounts = ["a", "b", SYSTEM_EXTERNAL]
    amounts: Counter[tuple[str, Pot]] = Counter()
    for _ in range(data.draw(st.integers(1, 25))):
        balances = {
            (account, "ETH"): Balance(amounts[account, Pot.AVAILABLE], amounts[account, Pot.HELD])
            for account in accounts
        }
        source, target = data.draw(st.permutations(accounts))[:2]
        amount = data.draw(st.integers(1, 9))
        owner = data.draw(st.sampled_from("ab"))
        legs = data.draw(
            st.sampled_from(
                [
                    (free(source, -amount), free(target, amount)),
                    place_hold(owner, "ETH", amount, hold_id=HOLD),
                    pay_from_hold(owner, "ETH", {"a": amount, "b": 1}, hold_id=HOLD),
                ]
            )
        )
        try:
            decide(balances, posting(*legs))
        except Refusal as refusal:
            assert refusal.code in {"insufficient_funds", "hold_exhausted"}
            continue
        for leg in legs:
            amounts[leg.account, leg.pot] += leg.amount_minor
        assert sum(amounts.values()) == 0
        assert all(amount >= 0 for (account, _), amount in amounts.items() if account != SYSTEM_EXTERNAL)
