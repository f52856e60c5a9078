"""Every state × command × role, against expectations that were written down by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

import pytest

from domain.errors import Refusal
from domain.escrow import (
    CODES,
    ApprovalPolicy,
    Approve,
    Cancel,
    Command,
    Dispute,
    Fund,
    PassDeadline,
    Refund,
    Release,
    Resolve,
    Role,
    Terms,
    decide,
)
from tests.domain.escrows import LONG_AFTER, SOON, USERS, in_state, terms

COMMANDS: dict[str, Command] = {
    "fund": Fund(),
    "approve": Approve(),
    "release": Release(),
    "refund": Refund(),
    "dispute": Dispute("not as agreed"),
    "resolve": Resolve(60, 40),
    "cancel": Cancel(),
    "pass_deadline": PassDeadline(),
}
CLOSED_STATES = ("released", "refunded", "cancelled", "expired")
STATES = ("pending", "funded", "approved", "disputed", *CLOSED_STATES)

#: One milestone; buyer or arbiter may approve, the buyer did where it is approved. ``>status`` is the escrow's next.
IN_TIME = """
command        role      pending                funded                    approved                  disputed                  closed
fund           buyer     >funded                milestone_already_funded  milestone_already_funded  milestone_already_funded  escrow_closed
fund           seller    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
fund           arbiter   role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
fund           stranger  not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
fund           system    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
approve        buyer     >created               >approved                 already_approved          milestone_disputed        escrow_closed
approve        seller    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
approve        arbiter   >created               >approved                 >approved                 milestone_disputed        escrow_closed
approve        stranger  not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
approve        system    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
release        buyer     milestone_not_funded   milestone_not_approved    >completed                >completed                escrow_closed
release        seller    milestone_not_funded   milestone_not_approved    inspection_running        milestone_disputed        escrow_closed
release        arbiter   role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
release        stranger  not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
release        system    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
refund         buyer     role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
refund         seller    milestone_not_funded   >refunded                 >refunded                 >refunded                 escrow_closed
refund         arbiter   role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
refund         stranger  not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
refund         system    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
dispute        buyer     milestone_not_funded   >disputed                 >disputed                 milestone_disputed        escrow_closed
dispute        seller    milestone_not_funded   >disputed                 >disputed                 milestone_disputed        escrow_closed
dispute        arbiter   role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
dispute        stranger  not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
dispute        system    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
resolve        buyer     role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
resolve        seller    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
resolve        arbiter   not_disputed           not_disputed              not_disputed              >completed                escrow_closed
resolve        stranger  not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
resolve        system    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
cancel         buyer     >cancelled             escrow_holds_money        escrow_holds_money        escrow_holds_money        escrow_closed
cancel         seller    >cancelled             escrow_holds_money        escrow_holds_money        escrow_holds_money        escrow_closed
cancel         arbiter   role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
cancel         stranger  not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
cancel         system    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
pass_deadline  buyer     role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
pass_deadline  seller    role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
pass_deadline  arbiter   role_not_allowed       role_not_allowed          role_not_allowed          role_not_allowed          role_not_allowed
pass_deadline  stranger  not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
pass_deadline  system    nothing_due            nothing_due               nothing_due               nothing_due               escrow_closed
"""

#: The same escrow, every deadline passed and no timer fired yet; what is not listed is as in time.
TOO_LATE = """
command        role      pending                funded                    approved                  disputed                  closed
fund           buyer     escrow_expired         milestone_already_funded  milestone_already_funded  milestone_already_funded  escrow_closed
approve        buyer     escrow_expired         escrow_expired            escrow_expired            milestone_disputed        escrow_closed
approve        arbiter   escrow_expired         escrow_expired            escrow_expired            milestone_disputed        escrow_closed
release        seller    milestone_not_funded   milestone_not_approved    >completed                milestone_disputed        escrow_closed
dispute        buyer     milestone_not_funded   escrow_expired            inspection_over           milestone_disputed        escrow_closed
dispute        seller    milestone_not_funded   escrow_expired            inspection_over           milestone_disputed        escrow_closed
pass_deadline  system    >expired               >expired                  >completed                nothing_due               escrow_closed
"""

#: Without inspection period and arbiter, what differs from the table in time; here the seller approves, too.
PLAIN = """
command        role      pending                funded                    approved                  disputed                  closed
approve        seller    >created               >approved                 >approved                 milestone_disputed        escrow_closed
approve        arbiter   not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
release        seller    milestone_not_funded   milestone_not_approved    >completed                milestone_disputed        escrow_closed
release        arbiter   not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
refund         arbiter   not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
fund           arbiter   not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
dispute        arbiter   not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
cancel         arbiter   not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
pass_deadline  arbiter   not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
resolve        buyer     no_arbiter             no_arbiter                no_arbiter                no_arbiter                no_arbiter
resolve        seller    no_arbiter             no_arbiter                no_arbiter                no_arbiter                no_arbiter
resolve        arbiter   not_a_party            not_a_party               not_a_party               not_a_party               not_a_party
resolve        system    no_arbiter             no_arbiter                no_arbiter                no_arbiter                no_arbiter
"""

Expectations = dict[tuple[str, str, str], str]


def parse(table: str) -> Expectations:
    """``(state, command, role) -> outcome``, with the column ``closed`` standing for each closed state."""
    header, *rows = (re.split(r"\s+", line) for line in table.strip().splitlines())
    expected = {}
    for command, role, *outcomes in rows:
        for column, outcome in zip(header[2:], outcomes, strict=True):
            for state in CLOSED_STATES if column == "closed" else (column,):
                expected[state, command, role] = outcome
    return expected


def cases() -> Iterator[tuple[str, Terms, datetime, Expectations]]:
    in_time = parse(IN_TIME)
    usual = terms(100, policy=ApprovalPolicy((Role.BUYER, Role.ARBITER), 1))
    plain = terms(
        100, policy=ApprovalPolicy((Role.BUYER, Role.SELLER), 1), arbiter=None, inspection_period_seconds=None
    )
    yield "in time", usual, SOON, in_time
    yield "too late", usual, LONG_AFTER, in_time | parse(TOO_LATE)
    yield "plain", plain, SOON, in_time | parse(PLAIN)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("agreed", "at", "expected"), [pytest.param(*case, id=name) for name, *case in cases()])
def test_every_command_of_every_role(state: str, agreed: Terms, at: datetime, expected: Expectations) -> None:
    escrow = in_state(state, agreed)
    wanted = {(command, role): expected[state, command, role] for command in COMMANDS for role in USERS}
    found = {}
    for command, role in wanted:
        try:
            found[command, role] = f">{decide(escrow, COMMANDS[command], user_id=USERS[role], at=at).escrow.status}"
        except Refusal as refusal:
            found[command, role] = refusal.code
    assert found == wanted


def test_tables_use_documented_codes() -> None:
    for table in (IN_TIME, TOO_LATE, PLAIN):
        assert {outcome for outcome in parse(table).values() if not outcome.startswith(">")} <= CODES.keys()
