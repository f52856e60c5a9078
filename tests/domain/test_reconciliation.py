"""What reconciliation compares, on plain figures; its arithmetic agrees with the rules that make the rows."""

from __future__ import annotations

import ast
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import reconciliation
from domain.escrow import Escrow
from domain.reconciliation import (
    CLOCK_LIMIT,
    FINDINGS,
    AccountFigures,
    EscrowFigures,
    MilestoneFigures,
    compare_account,
    compare_escrow,
    compare_trial_balance,
    share_explained_ppm,
    share_text,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MILESTONE = MilestoneFigures(
    position=1,
    status="pending",
    amount_minor=100,
    released_minor=0,
    refunded_minor=0,
    funded=False,
    due_at=None,
    hold_placed_minor=None,
    hold_remaining_minor=None,
)
ESCROW = EscrowFigures(
    escrow_id=UUID(int=1),
    status="created",
    asset="USDC",
    buyer="alice",
    seller="bob",
    fee_account="system:fees",
    buyer_fee_basis_points=250,
    seller_fee_basis_points=100,
    milestones=(MILESTONE,),
    moved={},
)
FUNDED = replace(
    ESCROW,
    status="funded",
    milestones=(replace(MILESTONE, status="funded", funded=True, hold_placed_minor=102, hold_remaining_minor=102),),
    moved={("alice", "USDC", "available"): -102, ("alice", "USDC", "held"): 102},
)


def test_every_code_is_documented_and_used() -> None:
    """Some are put together: the part of the figure that differs stands in the code."""
    source = Path(reconciliation.__file__).read_text(encoding="utf-8")
    table = source[source.index("FINDINGS: Final = {") : source.index("#: What the clock owes")]
    literals = {
        node.value
        for node in ast.walk(ast.parse(source.replace(table, "")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    composed = {"available_differs", "held_differs", "hold_placed_differs", "hold_remaining_differs"}
    assert FINDINGS.keys() - composed <= literals
    assert all(meaning.strip() for meaning in FINDINGS.values())


def test_figures_that_agree_are_no_finding() -> None:
    assert list(compare_account(AccountFigures("alice", "USDC", 5, 2, 5, 2))) == []
    assert list(compare_escrow(ESCROW, NOW)) == []
    assert list(compare_escrow(FUNDED, NOW)) == []
    assert list(compare_trial_balance({"USDC": 0, "ETH": 0})) == []


def test_a_payment_to_somebody_else_is_named_by_account() -> None:
    paid = replace(FUNDED, moved={**FUNDED.moved, ("mallory", "USDC", "available"): 1})
    [finding] = compare_escrow(paid, NOW)
    assert (finding.code, finding.part, finding.expected, finding.actual) == (
        "escrow_paid_differs",
        "mallory available",
        0,
        1,
    )


def test_a_payment_in_another_asset_is_named_by_asset() -> None:
    paid = replace(FUNDED, moved={**FUNDED.moved, ("bob", "ETH", "available"): 7})
    [finding] = compare_escrow(paid, NOW)
    assert (finding.code, finding.asset, finding.actual) == ("escrow_paid_differs", "ETH", 7)


@pytest.mark.parametrize(
    ("late", "frozen", "explained"),
    [
        (timedelta(minutes=1), False, None),
        (timedelta(minutes=3), False, True),
        (CLOCK_LIMIT, False, True),
        (CLOCK_LIMIT + timedelta(seconds=1), False, False),
        (timedelta(days=9), True, True),
    ],
)
def test_lateness_is_explained_for_a_while_or_by_a_freeze(
    late: timedelta, frozen: bool, explained: bool | None
) -> None:
    overdue = replace(ESCROW, milestones=(replace(MILESTONE, due_at=NOW - late),), frozen=frozen)
    found = [finding.explanation is not None for finding in compare_escrow(overdue, NOW)]
    assert found == ([] if explained is None else [explained])


@given(st.integers(0, 10**30), st.data())
def test_the_share_is_never_rounded_up_to_all(checked: int, data: st.DataObject) -> None:
    unexplained = data.draw(st.integers(0, checked))
    text = share_text(share_explained_ppm(checked, unexplained))
    assert (text == "1.000000") == (unexplained == 0)
    assert text >= "0.000000"


def test_the_rules_and_the_witness_agree_on_the_names_of_states() -> None:
    """The witness spells states out; a state that the rules gain must be thought about here."""
    assert Escrow.__module__ == "domain.escrow.model"
    from domain.escrow.model import MILESTONE_CLOSED, MILESTONE_HELD, MilestoneStatus

    assert {str(status) for status in MilestoneStatus} == {
        "pending",
        *(str(status) for status in MILESTONE_HELD),
        *(str(status) for status in MILESTONE_CLOSED),
    }
    for status in MILESTONE_CLOSED | MILESTONE_HELD:
        assert str(status) in Path(reconciliation.__file__).read_text(encoding="utf-8")
