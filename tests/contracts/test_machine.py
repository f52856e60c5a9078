"""Random commands of random callers over several escrows in coins and tokens, against the rules of the house.

After each step the contract and the model say the same of the escrow and of the money, and the contract's balance is
what it holds and what it owes. ``HOLDFAST_MODEL_EXAMPLES=500`` makes a longer run with a fresh seed, which it prints.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.contracts.desk import ARBITER, BUYER, COIN, NOBODY, SELLER, Ask, Desk, Told
from tests.contracts.oracle import Oracle
from tests.playing import EXAMPLES, play

SHORT = 30
STEPS = 25
SILENT = 1

#: What a run must have met, or it shows less than it says.
MET = {
    *("create: done", "fund: done", "approve: done", "release: done", "refund: done", "dispute: done"),
    *("resolve: done", "cancel: done", "pass_deadline: done", "withdraw: done", "withdraw: nothing_to_withdraw"),
    *("release: amount_exceeds_remaining", "fund: role_not_allowed", "resolve: resolution_not_exact"),
}

TERMS = st.fixed_dictionaries(
    {
        "token": st.integers(0, 2),
        "amount": st.sampled_from([1, 10, 1000, 10**21]),
        "arbiter": st.booleans(),
        "roles": st.integers(1, 7),
        "required": st.integers(1, 2),
        "times": st.tuples(*[st.sampled_from([0, 0, 2_000, 6_000])] * 3),
    }
)
WHO = st.sampled_from(["buyer", "seller", "arbiter"])
SHARES = st.sampled_from([5, 11, 3, 10, 1, 0])
DELAYS = st.sampled_from([0, 0, 100, 5_000])


class Machine(RuleBasedStateMachine):
    """One run, from the contract as it was deployed."""

    def __init__(self, desk: Desk, tokens: list[str], met: Counter[str]) -> None:
        super().__init__()
        self.desk, self.tokens, self.met = desk, tokens, met
        self.oracle, self.ids = Oracle(), list[bytes]()
        self.snapshot = desk.chain.rpc("evm_snapshot")
        self.now = desk.chain.now
        self.sent: dict[str, int] = Counter()
        self.touched: str | None = None

    def teardown(self) -> None:
        history = [number for number, _ in self.desk.history()]
        assert history == list(range(1, self.oracle.sequence + 1))
        assert self.desk.chain.rpc("evm_revert", self.snapshot)

    def pass_time(self, seconds: int = 1) -> int:
        self.now += seconds
        self.desk.chain.next_at(self.now)
        return self.now

    def told(self, name: str, mined: Any, expected: str | list[Told]) -> None:
        """Compare what became of a command with what the model says, numbers included."""
        told = self.desk.told(mined)
        if isinstance(expected, str):
            assert (mined.refusal, told) == (expected, [])
        else:
            assert mined.refusal is None, (name, mined.refusal, expected)
            assert [each for _, each in told] == expected
            last = self.oracle.sequence
            assert [number for number, _ in told] == list(range(last - len(told) + 1, last + 1))
        self.met[f"{name}: {mined.refusal or 'done'}"] += 1

    @initialize(asked=st.lists(TERMS, min_size=1, max_size=3))
    def create(self, asked: list[dict[str, Any]]) -> None:
        for each in asked:
            self._create(**each)

    def _create(
        self, token: int, amount: int, arbiter: bool, roles: int, required: int, times: tuple[int, int, int]
    ) -> None:
        at = self.pass_time()
        # Without an arbiter nobody approves as one.
        roles = roles if arbiter else roles & ~ARBITER or BUYER
        terms = self.desk.terms(
            token=self.tokens[token],
            amount=amount,
            arbiter=self.desk.arbiter if arbiter else NOBODY,
            approving_roles=roles,
            approvals_required=min(required, roles.bit_count()),
            funding_deadline=times[0] and at + (min(times[:2]) or times[0]),
            expires_at=times[1] and at + times[1],
            inspection_seconds=times[2],
        )
        escrow_id, mined = self.desk.create(terms)
        assert (mined.refusal, self.oracle.open(escrow_id, terms, at)) == (None, None)
        self.ids.append(escrow_id)
        self.met["create: done"] += 1

    @precondition(lambda self: self.ids)
    @rule(
        which=st.integers(0, 3),
        name=st.sampled_from(["approve", "cancel", "dispute", "fund", "pass_deadline", "refund", "release", "resolve"]),
        who=WHO,
        share=SHARES,
        delay=DELAYS,
    )
    def ask(self, which: int, name: str, who: str, share: int, delay: int) -> None:
        escrow_id = self.ids[which % len(self.ids)]
        self._ask(escrow_id, name, getattr(self.desk, who), share, delay)

    @precondition(lambda self: self.ids)
    @rule(which=st.integers(0, 3), share=SHARES, terms=TERMS)
    def ask_what_helps(self, which: int, share: int, terms: dict[str, Any]) -> None:
        """The next step of a life, so that runs get somewhere."""
        alive = [each for each in self.ids if self.oracle.escrows[each].closed_at is None]
        if not alive:
            self._create(**terms)
            return
        escrow_id = alive[which % len(alive)]
        escrow, agreed = self.oracle.escrows[escrow_id], self.oracle.terms[escrow_id]
        given = self.oracle.state(escrow_id).approvals
        missing = [bit for bit in (BUYER, SELLER, ARBITER) if agreed.approving_roles & bit & ~given]
        party = {BUYER: agreed.buyer, SELLER: agreed.seller, ARBITER: agreed.arbiter}
        arbiter = agreed.arbiter if agreed.arbiter != NOBODY else agreed.buyer
        due_at = self.oracle.due_at(escrow_id)
        match escrow.status:
            case _ if due_at and self.now >= due_at:
                self._ask(escrow_id, "pass_deadline", self.desk.stranger, 0, 0)
            case "created":
                self._ask(escrow_id, "fund", agreed.buyer, 10, 0)
            case "funded":
                self._ask(escrow_id, "approve" if missing else "refund", party[missing[0] if missing else SELLER], 1, 0)
            case "approved":
                dispute = share % 3 == 0
                self._ask(escrow_id, "dispute" if dispute else "release", agreed.buyer, share, 0)
            case _:
                self._ask(escrow_id, "resolve" if arbiter != agreed.buyer else "release", arbiter, share, 0)

    def _ask(self, escrow_id: bytes, name: str, by: str, share: int, delay: int) -> None:
        terms = self.oracle.terms[escrow_id]
        remaining = self.oracle.escrows[escrow_id].milestones[0].remaining_minor
        # A share of eleven tenths is more than there is.
        part = -(-remaining * share // 10) + (share == 11)
        asks = {
            "fund": Ask("fund", value=terms.amount - (share == 11) if terms.token == COIN else 0),
            "release": Ask("release", (part,)),
            "refund": Ask("refund", (part,)),
            "dispute": Ask("dispute", (share.to_bytes(32),)),
            "resolve": Ask("resolve", (part, max(remaining - part, 0))),
        }
        ask = asks.get(name, Ask(name))
        at = self.pass_time(1 + delay)
        expected = self.oracle.ask(escrow_id, ask, by, at)
        self.told(name, self.desk.ask(escrow_id, ask, by), expected)
        assert self.desk.state(escrow_id) == self.oracle.state(escrow_id)
        self.touched = terms.token

    @precondition(lambda self: any(self.oracle.withdrawable.values()))
    @rule(which=st.integers(0, 11))
    def withdraw(self, which: int) -> None:
        self.pass_time()
        # Those who have something, and two who have nothing.
        owed = [key for key, amount in self.oracle.withdrawable.items() if amount]
        accounts = [*owed, *owed, (COIN, self.desk.arbiter), (owed[0][0], self.desk.stranger)]
        of, account = accounts[which % len(accounts)]
        amount = self.oracle.withdraw(of, account)
        told = [("Withdrawn", {"account": account, "token": of, "to": account, "amount": amount})]
        self.told("withdraw", self.desk.withdraw(account, token=of), told if amount else "nothing_to_withdraw")
        self.touched = of

    @invariant()
    def the_money_is_where_the_model_has_it(self) -> None:
        if self.touched is None:
            return
        books, token = self.desk.books(self.touched), self.touched
        self.touched = None
        assert (books.held, books.owed) == (self.oracle.held[token], self.oracle.owed(token))
        assert books.balance == books.held + books.owed
        assert books.sequence == self.oracle.sequence
        held = sum(
            escrow.milestones[0].remaining_minor
            for escrow_id, escrow in self.oracle.escrows.items()
            if self.oracle.terms[escrow_id].token == token
        )
        assert books.held == held


@pytest.mark.timeout(300 + 5 * EXAMPLES)
def test_contract_and_model_agree_after_every_step(deployed: Desk) -> None:
    tokens, met = [COIN], Counter[str]()
    for habit in (0, SILENT):
        token = deployed.deploy("token")
        tokens.append(str(token.address))
        for call, by in (
            (token.functions.mint(deployed.buyer, 10**24), deployed.stranger),
            (token.functions.approve(deployed.contract.address, 2**255), deployed.buyer),
            (token.functions.behave(habit, NOBODY, b""), deployed.stranger),
        ):
            assert deployed.chain.send(call, by).refusal is None
    # Making a failure smaller takes minutes; a long run has them.
    phases = tuple(Phase) if EXAMPLES else (Phase.generate,)
    play("contract", lambda: Machine(deployed, tokens, met), met, MET, short=SHORT, steps=STEPS, phases=phases)
    print("\n".join(f"{count:>5} {what}" for what, count in sorted(met.items())))  # noqa: T201 - what it was worth
