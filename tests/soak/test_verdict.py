"""The verdict notices what it is there for, and the model of an escrow agrees with the books by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.soak import commands, verdict
from tests.soak.client import Answer, Request
from tests.soak.commands import Accepted
from tests.soak.model import FEES, Escrow, Milestone, major, minor


def escrow(*amounts: int, **terms: int) -> Escrow:
    return Escrow("e", "USDC", "alice", "bob", [Milestone(amount) for amount in amounts], **terms)  # type: ignore[arg-type]


def booked(escrow: Escrow) -> dict[tuple[str, str], int]:
    books: Counter[tuple[str, str, str]] = Counter()
    escrow.book(books)
    assert sum(books.values()) == 0
    return {(account, pot): amount for (account, _, pot), amount in books.items() if amount}


def test_a_release_in_parts_pays_both_fees_and_gives_the_reserve_back() -> None:
    made = escrow(10_000, buyer_points=100, seller_points=50)
    made.apply("fund", "buyer", {}, 0)
    assert booked(made) == {("alice", "available"): -10_100, ("alice", "held"): 10_100}
    made.apply("approvals", "buyer", {}, 0)
    made.apply("release", "buyer", {"amount": "4000"}, 0)
    made.apply("refund", "seller", {}, 0)
    assert (made.status, made.accepted) == ("completed", 4)
    assert booked(made) == {("alice", "available"): -4_040, ("bob", "available"): 3_980, (FEES, "available"): 60}


def test_the_clock_gives_back_what_nobody_approved() -> None:
    made = escrow(500, 700)
    made.expiring = True
    made.apply("fund", "buyer", {"milestones": [1]}, 0)
    assert made.clock_runs
    made.pass_time()
    assert (made.status, booked(made)) == ("expired", {})
    assert not made.clock_runs


@pytest.mark.parametrize(("text", "scale", "amount"), [("1.50", 6, 1_500_000), ("7", 0, 7), ("0.000001", 6, 1)])
def test_amounts(text: str, scale: int, amount: int) -> None:
    assert minor(text, scale) == amount
    assert minor(major(amount, scale), scale) == amount


def request(*answers: Answer) -> Request:
    return Request("k", "/x", {}, answers=list(answers))


def test_answers_that_differ_are_noticed() -> None:
    told, other = Answer(201, b"{}", False), Answer(201, b"{ }", True)
    refused, taken = Answer(409, b'{"code": "a"}', False), Answer(409, b'{"code": "b"}', False)
    again = Answer(409, b'{"code": "a", "request_id": "2"}', False)
    assert list(verdict.answers([request(told, told), request(refused, again)])) == []
    for wrong in (request(), request(told, other), request(told, refused), request(refused, taken)):
        assert len(list(verdict.answers([wrong]))) == 1


def test_a_race_has_one_winner() -> None:
    assert list(verdict.races([1, 1])) == []
    assert len(list(verdict.races([0, 1, 2]))) == 2


def test_workflows_are_those_of_open_escrows() -> None:
    made, done = escrow(1), escrow(1)
    made.escrow_id, done.escrow_id = "open", "done"
    done.apply("cancel", "buyer", {}, 0)
    assert list(verdict.workflows({"escrow:open": "EscrowWorkflow"}, [made, done])) == []
    stray = {"escrow:done": "EscrowWorkflow", "transfer:1": "TransferWorkflow"}
    assert len(list(verdict.workflows(stray, [made, done]))) == 3


ROWS = [
    ("1", "deposit", "a", None, 5, "SETTLED", None),
    ("2", "transfer", "a", "b", 3, "SETTLED", None),
    ("3", "withdrawal", "a", None, 3, "REJECTED", "insufficient_funds"),
]


def test_commands_end_as_one_after_the_other() -> None:
    taken = {name: Accepted(0, 0) for name in "123"}
    assert list(commands.outcomes(ROWS, taken)) == []
    assert len(list(commands.outcomes(ROWS, taken | {"4": Accepted(0, 0)}))) == 1, "one is gone"
    assert len(list(commands.outcomes(ROWS[1:], taken))) == 2, "one is gone, and one was settled without money"
    assert len(list(commands.outcomes(ROWS, {}))) == 3, "nobody asked for them"


def test_commands_are_carried_out_in_the_order_received() -> None:
    taken = {"1": Accepted(sent=0, answered=1), "2": Accepted(sent=2, answered=3), "3": Accepted(sent=2, answered=9)}
    assert list(commands.order(ROWS, taken)) == []
    assert len(list(commands.order([ROWS[1], ROWS[0], ROWS[2]], taken))) == 1
    assert list(commands.order([ROWS[0], ROWS[2], ROWS[1]], taken)) == [], "they were on their way at once"
