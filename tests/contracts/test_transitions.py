"""Every state × command × caller: the contract does what the rules of the house do, or refuses with the same code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from tests.contracts.desk import ARBITER, BUYER, NOBODY, REASON, SELLER, STATES, Ask, Desk, Terms
from tests.contracts.oracle import Oracle

HOUR, DAY = 3600, 24 * 3600
AMOUNT = 100
COMMANDS = (
    Ask("fund", value=AMOUNT),
    Ask("fund", value=AMOUNT - 1),
    Ask("approve"),
    Ask("release", (40,)),
    Ask("release", (AMOUNT,)),
    Ask("release", (AMOUNT + 1,)),
    Ask("release", (0,)),
    Ask("refund", (40,)),
    Ask("refund", (AMOUNT,)),
    Ask("refund", (AMOUNT + 1,)),
    Ask("refund", (0,)),
    Ask("dispute", (REASON,)),
    Ask("dispute", (bytes(32),)),
    Ask("resolve", (60, 40)),
    Ask("resolve", (60, 41)),
    Ask("resolve", (AMOUNT + 1, 2**256 - 1)),
    Ask("cancel"),
    Ask("pass_deadline"),
)
OPEN_STATES = STATES[:4]
#: How an escrow comes into each state: who does what.
WAYS: Mapping[str, tuple[tuple[str, Ask], ...]] = {
    "pending": (),
    "funded": (("buyer", COMMANDS[0]),),
    "approved": (("buyer", COMMANDS[0]), ("buyer", Ask("approve"))),
    "disputed": (("buyer", COMMANDS[0]), ("buyer", Ask("approve")), ("seller", Ask("dispute", (REASON,)))),
    "released": (("buyer", COMMANDS[0]), ("buyer", Ask("approve")), ("buyer", Ask("release", (AMOUNT,)))),
    "refunded": (("buyer", COMMANDS[0]), ("seller", Ask("refund", (AMOUNT,)))),
    "cancelled": (("seller", Ask("cancel")),),
    "expired": (("stranger", Ask("pass_deadline")),),
}


class Both:
    """An escrow on the chain and in the rules; each command goes to both, and both must say the same."""

    def __init__(self, desk: Desk, terms: Terms) -> None:
        self.desk, self.oracle = desk, Oracle()
        self.escrow_id, mined = desk.create(terms)
        assert (mined.refusal, self.oracle.open(self.escrow_id, terms, desk.chain.now)) == (None, None)
        self.opened_at = desk.chain.now

    def ask(self, who: str, ask: Ask, at: int | None = None) -> str | None:
        """The refusal, where both refuse."""
        at = at or self.desk.chain.now + 1
        self.desk.chain.next_at(at)
        by: str = getattr(self.desk, who)
        mined = self.desk.ask(self.escrow_id, ask, by)
        said = self.oracle.ask(self.escrow_id, ask, by, at)
        expected = said if isinstance(said, str) else None
        assert mined.refusal == expected, f"{who} {ask}"
        if not isinstance(said, str):
            first = self.oracle.sequence - len(said) + 1
            assert self.desk.told(mined) == list(enumerate(said, first))
            assert self.desk.state(self.escrow_id) == self.oracle.state(self.escrow_id)
        return mined.refusal

    def in_state(self, state: str) -> None:
        for who, ask in WAYS[state]:
            late = 31 * DAY if state == "expired" else None
            assert self.ask(who, ask, at=late and self.opened_at + late) is None
        assert self.desk.state(self.escrow_id).status == state


def tried(both: Both, at: int) -> Iterator[tuple[str, Ask, str | None]]:
    """Every command of every caller, each from the same state, from the same instant on."""
    chain, began = both.desk.chain, deepcopy(both.oracle)
    cases = [(who, ask) for ask in COMMANDS for who in ("buyer", "seller", "arbiter", "stranger")]
    while cases:
        # A refused transaction leaves nothing but a block, so only one that was carried out is taken back.
        with chain.undone():
            refusal: str | None = ""
            while cases and refusal is not None:
                who, ask = cases.pop()
                refusal = both.ask(who, ask, at=max(at, chain.now + 1))
                yield who, ask, refusal
        both.oracle = deepcopy(began)


def full_terms(desk: Desk, **changes: Any) -> Terms:
    now = desk.chain.now
    terms = desk.terms(
        amount=AMOUNT,
        approving_roles=BUYER | ARBITER,
        funding_deadline=now + 7 * DAY,
        expires_at=now + 30 * DAY,
        inspection_seconds=3 * DAY,
    )
    return replace(terms, **changes)


@pytest.mark.parametrize("state", STATES)
def test_every_command_of_every_caller_does_what_the_rules_say(desk: Desk, state: str) -> None:
    both = Both(desk, full_terms(desk))
    both.in_state(state)
    outcomes = {(who, ask): refusal for who, ask, refusal in tried(both, at=desk.chain.now + HOUR)}
    assert len(outcomes) == 4 * len(COMMANDS)
    assert (None in outcomes.values()) == (state in OPEN_STATES)


@pytest.mark.parametrize("state", OPEN_STATES)
def test_every_command_at_the_deadline_does_what_the_rules_say(desk: Desk, state: str) -> None:
    both = Both(desk, full_terms(desk))
    both.in_state(state)
    due_at = desk.read("due_at", both.escrow_id)
    assert due_at == both.oracle.due_at(both.escrow_id)
    assert (due_at == 0) == (state == "disputed")
    refusals = {refusal for _, _, refusal in tried(both, at=due_at or both.opened_at + 40 * DAY)}
    # The second before, the clock does nothing yet.
    if due_at:
        assert both.ask("stranger", Ask("pass_deadline"), at=due_at - 1) == "nothing_due"
    late = {"pending": "funding_deadline_passed", "funded": "escrow_expired", "approved": "inspection_over"}
    assert late.get(state, "nothing_due") in refusals


@pytest.mark.parametrize(
    ("state", "who", "ask", "before", "then"),
    [
        ("pending", "buyer", Ask("fund", value=AMOUNT), None, "funding_deadline_passed"),
        ("pending", "arbiter", Ask("approve"), None, "funding_deadline_passed"),
        ("pending", "stranger", Ask("pass_deadline"), "nothing_due", None),
        ("funded", "buyer", Ask("approve"), None, "escrow_expired"),
        ("funded", "seller", Ask("dispute", (REASON,)), None, "escrow_expired"),
        ("funded", "stranger", Ask("pass_deadline"), "nothing_due", None),
        ("approved", "seller", Ask("release", (1,)), "inspection_running", None),
        ("approved", "buyer", Ask("dispute", (REASON,)), None, "inspection_over"),
        ("approved", "stranger", Ask("pass_deadline"), "nothing_due", None),
    ],
)
def test_a_deadline_is_a_second(
    desk: Desk, state: str, who: str, ask: Ask, before: str | None, then: str | None
) -> None:
    both = Both(desk, full_terms(desk))
    both.in_state(state)
    due_at, began = desk.read("due_at", both.escrow_id), deepcopy(both.oracle)
    for at, refusal in ((due_at - 1, before), (due_at, then)):
        with desk.chain.undone():
            assert both.ask(who, ask, at=at) == refusal
        both.oracle = deepcopy(began)


@pytest.mark.parametrize("ask", COMMANDS)
def test_what_was_never_opened_is_unknown(desk: Desk, ask: Ask) -> None:
    assert desk.ask(bytes(31) + b"\x07", ask, desk.buyer).refusal == "escrow_unknown"


def test_without_an_arbiter_nobody_resolves_and_the_parties_end_a_dispute(desk: Desk) -> None:
    both = Both(desk, full_terms(desk, arbiter=NOBODY, approving_roles=BUYER))
    both.in_state("disputed")
    for who in ("buyer", "seller"):
        assert both.ask(who, Ask("resolve", (60, 40))) == "no_arbiter"
    assert both.ask("arbiter", Ask("resolve", (60, 40))) == "not_a_party"
    assert both.ask("seller", Ask("refund", (30,))) is None
    assert both.ask("buyer", Ask("release", (70,))) is None
    assert desk.state(both.escrow_id).status == "released"


def test_approvals_may_come_before_the_money(desk: Desk) -> None:
    both = Both(desk, full_terms(desk, approving_roles=BUYER | SELLER | ARBITER, approvals_required=2))
    for who in ("arbiter", "seller"):
        assert both.ask(who, Ask("approve")) is None
    assert both.ask("buyer", Ask("fund", value=AMOUNT)) is None
    assert desk.state(both.escrow_id).status == "approved"
    assert both.ask("buyer", Ask("approve")) is None
    assert both.ask("buyer", Ask("approve")) == "already_approved"


def test_without_an_inspection_the_seller_may_take_what_is_approved(desk: Desk) -> None:
    both = Both(desk, full_terms(desk, inspection_seconds=0))
    both.in_state("approved")
    assert desk.read("due_at", both.escrow_id) == 0
    assert both.ask("seller", Ask("release", (AMOUNT,))) is None


def test_without_deadlines_no_clock_runs(desk: Desk) -> None:
    both = Both(desk, full_terms(desk, funding_deadline=0, expires_at=0))
    for state in ("pending", "funded"):
        for who, ask in WAYS[state]:
            both.ask(who, ask)
        assert both.ask("stranger", Ask("pass_deadline"), at=desk.chain.now + 1000 * DAY) == "nothing_due"


def test_released_in_parts_until_nothing_is_left(desk: Desk) -> None:
    both = Both(desk, full_terms(desk))
    both.in_state("approved")
    for amount, left in ((40, 60), (25, 35)):
        assert both.ask("buyer", Ask("release", (amount,))) is None
        assert desk.read("remaining", both.escrow_id) == left
    assert both.ask("buyer", Ask("release", (36,))) == "amount_exceeds_remaining"
    assert both.ask("seller", Ask("refund", (5,))) is None
    assert both.ask("seller", Ask("dispute", (REASON,))) is None
    assert both.ask("arbiter", Ask("resolve", (AMOUNT, 0))) == "resolution_not_exact"
    assert both.ask("arbiter", Ask("resolve", (20, 10))) is None
    assert desk.state(both.escrow_id).status == "released"
    assert (desk.withdrawable(desk.seller), desk.withdrawable(desk.buyer)) == (85, 15)


@pytest.mark.parametrize(("parts", "status"), [((AMOUNT, 0), "released"), ((0, AMOUNT), "refunded")])
def test_a_dispute_may_end_with_everything_for_one(desk: Desk, parts: tuple[int, int], status: str) -> None:
    both = Both(desk, full_terms(desk))
    both.in_state("disputed")
    assert both.ask("arbiter", Ask("resolve", parts)) is None
    assert desk.state(both.escrow_id).status == status


OPENINGS: tuple[tuple[dict[str, Any], str | None], ...] = (
    ({}, None),
    ({"arbiter": NOBODY, "approving_roles": BUYER}, None),
    ({"funding_deadline": 0}, None),
    ({"amount": 0}, "amount_invalid"),
    ({"amount": 2**256 - 1}, None),
    ({"approving_roles": 0}, "policy_roles_invalid"),
    ({"arbiter": NOBODY}, "policy_roles_invalid"),
    ({"approvals_required": 0}, "policy_required_invalid"),
    ({"approvals_required": 3}, "policy_required_invalid"),
    ({"approvals_required": 2}, None),
    ({"expires_at": 1}, "deadline_not_in_future"),
    ({"funding_deadline": 1}, "deadline_not_in_future"),
    ({"inspection_seconds": 366 * DAY}, None),
    ({"inspection_seconds": 366 * DAY + 1}, "inspection_period_invalid"),
)


@pytest.mark.parametrize(("changes", "code"), OPENINGS)
def test_terms_are_judged_as_the_house_judges_them(desk: Desk, changes: dict[str, Any], code: str | None) -> None:
    terms = full_terms(desk, **changes)
    escrow_id, mined = desk.create(terms)
    assert (mined.refusal, Oracle().open(escrow_id, terms, desk.chain.now)) == (code, code)


def test_terms_that_a_chain_alone_can_get_wrong(desk: Desk) -> None:
    own = desk.contract.address
    for changes, code in (
        ({"buyer": desk.seller}, "parties_not_distinct"),
        ({"arbiter": desk.seller}, "parties_not_distinct"),
        ({"arbiter": desk.buyer}, "parties_not_distinct"),
        ({"seller": NOBODY}, "party_invalid"),
        ({"seller": own}, "party_invalid"),
        ({"arbiter": own}, "party_invalid"),
        ({"token": desk.stranger}, "token_invalid"),
        ({"approving_roles": 8}, ""),  # no role at all: refused before the contract looks at it
    ):
        assert desk.create(full_terms(desk, **changes))[1].refusal == code, changes
    terms = full_terms(desk)
    late = replace(terms, funding_deadline=terms.expires_at + 1)
    assert desk.create(late)[1].refusal == "deadlines_out_of_order"
    for stranger in (desk.arbiter, desk.stranger):
        assert desk.create(terms, by=stranger)[1].refusal == "role_not_allowed"
    assert desk.create(terms, by=desk.seller)[1].refusal is None


def test_an_id_is_its_terms_so_no_command_reaches_others(desk: Desk) -> None:
    terms = full_terms(desk)
    escrow_id, mined = desk.create(terms, reference=REASON)
    assert mined.refusal is None
    assert desk.create(terms, reference=REASON)[1].refusal == "escrow_exists"
    others = {
        desk.create(terms, by=desk.seller, reference=REASON)[0],
        desk.create(terms, reference=bytes(32))[0],
        desk.create(replace(terms, amount=AMOUNT + 1), reference=REASON)[0],
    }
    assert len({escrow_id, *others}) == 4
    assert desk.read("escrow_id", desk.buyer, REASON, tuple(vars(terms).values())) == escrow_id
    assert {desk.state(each).status for each in (escrow_id, *others)} == {"pending"}
