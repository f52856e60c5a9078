"""Where the money is, coins and tokens, and what parties and tokens that mean harm can do to others: nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from web3.contract import Contract

from tests.anvil import Mined
from tests.contracts.desk import COIN, NOBODY, REASON, Books, Desk

AMOUNT = 1000
#: Habits of the token and of the party, in the order of their flags.
SILENT, REFUSES, GARBAGE, FEE, GREEDY, REENTERS, REVERTS = (1 << bit for bit in range(7))
PARTY_REVERTS, PARTY_REENTERS, PARTY_BURNS = (1 << bit for bit in range(3))


@dataclass
class Wallet:
    """A contract of the tests that is a party: it does what it is told by anybody."""

    desk: Desk
    contract: Contract

    @property
    def address(self) -> str:
        return str(self.contract.address)

    def act(self, name: str, *arguments: Any, value: int = 0) -> Mined:
        """The contract calls the escrow contract."""
        payload = self.desk.contract.encode_abi(name, args=arguments)
        call = self.contract.functions.act(self.desk.contract.address, payload)
        return self.desk.chain.send(call, self.desk.stranger, value, gas=3_000_000)

    def behave(self, habit: int, name: str = "sequence", *arguments: Any) -> None:
        """From now on it has a habit; one that re-enters calls ``name`` then."""
        payload = self.desk.contract.encode_abi(name, args=arguments)
        call = self.contract.functions.behave(habit, self.desk.contract.address, payload)
        assert self.desk.chain.send(call, self.desk.stranger).refusal is None

    def reentered(self) -> tuple[int, int]:
        """How often it tried to, and how often it got through."""
        functions = self.contract.functions
        return functions.tried().call(), functions.reentered().call()


@pytest.fixture
def token(desk: Desk) -> Wallet:
    """A token of which the buyer has plenty, and which the contract may take."""
    contract = desk.deploy("token")
    for call, by in (
        (contract.functions.mint(desk.buyer, 10 * AMOUNT), desk.stranger),
        (contract.functions.approve(desk.contract.address, 10 * AMOUNT), desk.buyer),
    ):
        assert desk.chain.send(call, by).refusal is None
    return Wallet(desk, contract)


@pytest.fixture
def party(desk: Desk) -> Wallet:
    return Wallet(desk, desk.deploy("party"))


def balance(token: Wallet, account: str) -> int:
    return int(token.contract.functions.balanceOf(account).call())


def books(desk: Desk, token: str = COIN) -> tuple[int, int, int]:
    """Balance, held and owed."""
    now: Books = desk.books(token)
    return now.balance, now.held, now.owed


class TestCoins:
    def test_what_is_credited_is_withdrawn_to_the_last_coin(self, desk: Desk) -> None:
        before = {account: desk.coins(account) for account in (desk.buyer, desk.seller, desk.stranger)}
        escrow_id = desk.funded(desk.terms(amount=AMOUNT))
        assert books(desk) == (AMOUNT, AMOUNT, 0)
        desk.done(escrow_id, "approve", by=desk.buyer)
        desk.done(escrow_id, "release", 700, by=desk.buyer)
        desk.done(escrow_id, "refund", 100, by=desk.seller)
        assert books(desk) == (AMOUNT, 200, 800)
        assert desk.withdraw(desk.seller).refusal is None
        assert desk.withdraw(desk.buyer, to=desk.stranger).refusal is None
        assert books(desk) == (200, 200, 0)
        gained = {account: desk.coins(account) - coins for account, coins in before.items()}
        assert gained == {desk.buyer: -AMOUNT, desk.seller: 700, desk.stranger: 100}

    def test_nobody_withdraws_what_is_not_theirs(self, desk: Desk) -> None:
        escrow_id = desk.funded()
        desk.done(escrow_id, "dispute", REASON, by=desk.buyer)
        desk.done(escrow_id, "resolve", 30, 70, by=desk.arbiter)
        for account in (desk.arbiter, desk.stranger, desk.chain.accounts[0]):
            assert desk.withdraw(account).refusal == "nothing_to_withdraw"
        assert desk.withdraw(desk.seller).refusal is None
        assert desk.withdraw(desk.seller).refusal == "nothing_to_withdraw"
        assert books(desk) == (70, 0, 70)

    @pytest.mark.parametrize("where", ["nobody", "itself"])
    def test_nothing_is_sent_where_it_would_be_lost(self, desk: Desk, where: str) -> None:
        escrow_id = desk.funded()
        desk.done(escrow_id, "refund", 100, by=desk.seller)
        to = NOBODY if where == "nobody" else desk.contract.address
        assert desk.withdraw(desk.buyer, to=to).refusal == "recipient_invalid"

    def test_coins_that_nobody_asked_for_are_not_taken(self, desk: Desk) -> None:
        receipt = desk.chain.transact(
            {"from": desk.buyer, "to": desk.contract.address, "value": hex(1), "gas": hex(100_000)}
        )
        assert receipt["status"] == "0x0"

    def test_coins_that_were_forced_in_change_nothing(self, desk: Desk) -> None:
        escrow_id = desk.funded()
        desk.chain.rpc("anvil_setBalance", desk.contract.address, hex(107))
        desk.done(escrow_id, "refund", 100, by=desk.seller)
        assert books(desk) == (107, 0, 100)
        assert desk.withdraw(desk.buyer).refusal is None
        assert books(desk) == (7, 0, 0)


class TestPartiesThatAreContracts:
    def funded_for(self, desk: Desk, party: Wallet) -> bytes:
        """The party sells; half was released to it, a quarter returned to the buyer."""
        escrow_id = desk.funded(desk.terms(seller=party.address, amount=AMOUNT))
        desk.done(escrow_id, "approve", by=desk.buyer)
        desk.done(escrow_id, "release", 500, by=desk.buyer)
        assert party.act("refund", escrow_id, 250).refusal is None
        return escrow_id

    @pytest.mark.parametrize("habit", [PARTY_REVERTS, PARTY_BURNS])
    def test_who_cannot_be_paid_holds_up_nobody(self, desk: Desk, party: Wallet, habit: int) -> None:
        party.behave(habit)
        escrow_id = self.funded_for(desk, party)
        desk.done(escrow_id, "release", 250, by=desk.buyer)
        assert desk.state(escrow_id).status == "released"
        assert desk.withdraw(desk.buyer).refusal is None
        assert party.act("withdraw", COIN, party.address).refusal is not None
        assert books(desk) == (750, 0, 750)
        # It still has its money, and may send it where it arrives.
        before = desk.coins(desk.others[0])
        assert party.act("withdraw", COIN, desk.others[0]).refusal is None
        assert desk.coins(desk.others[0]) - before == 750
        assert books(desk) == (0, 0, 0)

    def test_no_door_opens_while_coins_leave(self, desk: Desk, party: Wallet) -> None:
        escrow_id = self.funded_for(desk, party)
        other = desk.funded(desk.terms(seller=party.address, amount=AMOUNT))
        # What it tries is what it would be allowed to do a moment later.
        for name, arguments in (
            ("withdraw", (COIN, party.address)),
            ("refund", (other, 1)),
            ("dispute", (escrow_id, REASON)),
            ("books", (COIN,)),
            ("withdrawable", (COIN, party.address)),
        ):
            with desk.chain.undone():
                party.behave(PARTY_REENTERS, name, *arguments)
                assert party.act("withdraw", COIN, party.address).refusal is None
                assert party.reentered() == (1, 0), name
                assert desk.coins(party.address) == 500
                assert books(desk) == (1500, 1250, 250)

    def test_a_contract_buys(self, desk: Desk, party: Wallet) -> None:
        terms = desk.terms(buyer=party.address, amount=AMOUNT)
        escrow_id = desk.opened(terms, by=desk.seller)
        assert party.act("fund", escrow_id, value=AMOUNT).refusal is None
        desk.done(escrow_id, "refund", AMOUNT, by=desk.seller)
        assert party.act("withdraw", COIN, party.address).refusal is None
        assert desk.coins(party.address) == AMOUNT


class TestTokens:
    def opened(self, desk: Desk, token: Wallet) -> bytes:
        return desk.opened(desk.terms(token=token.address, amount=AMOUNT))

    def refunded(self, desk: Desk, token: Wallet) -> bytes:
        """Money of the buyer's that waits to be withdrawn, and some of another escrow that is held."""
        escrow_id, other = self.opened(desk, token), self.opened(desk, token)
        desk.done(escrow_id, "fund", by=desk.buyer)
        desk.done(other, "fund", by=desk.buyer)
        desk.done(escrow_id, "refund", AMOUNT, by=desk.seller)
        assert books(desk, token.address) == (2 * AMOUNT, AMOUNT, AMOUNT)
        return escrow_id

    @pytest.mark.parametrize("habit", [0, SILENT], ids=["answers", "returns nothing"])
    def test_a_whole_life(self, desk: Desk, token: Wallet, habit: int) -> None:
        token.behave(habit)
        escrow_id = self.opened(desk, token)
        desk.done(escrow_id, "fund", by=desk.buyer)
        assert balance(token, desk.buyer) == 9 * AMOUNT
        desk.done(escrow_id, "dispute", REASON, by=desk.seller)
        desk.done(escrow_id, "resolve", 400, 600, by=desk.arbiter)
        assert books(desk, token.address) == (AMOUNT, 0, AMOUNT)
        for account, amount in ((desk.seller, 400), (desk.buyer, 9600)):
            assert desk.withdraw(account, token=token.address).refusal is None
            assert balance(token, account) == amount
        assert books(desk, token.address) == (0, 0, 0)
        assert books(desk) == (0, 0, 0)

    def test_coins_beside_tokens_are_refused(self, desk: Desk, token: Wallet) -> None:
        escrow_id = self.opened(desk, token)
        assert desk.refused(escrow_id, "fund", by=desk.buyer, value=AMOUNT) == "amount_mismatch"

    @pytest.mark.parametrize(
        ("habit", "reason"),
        [(REFUSES, "token_refused"), (GARBAGE, ""), (FEE, "token_not_exact"), (REVERTS, "not today")],
    )
    def test_what_did_not_arrive_is_not_held(self, desk: Desk, token: Wallet, habit: int, reason: str) -> None:
        escrow_id = self.opened(desk, token)
        token.behave(habit)
        assert desk.refused(escrow_id, "fund", by=desk.buyer) == reason
        assert desk.state(escrow_id).status == "pending"
        assert books(desk, token.address) == (0, 0, 0)

    def test_what_may_not_be_taken_is_not_held(self, desk: Desk, token: Wallet) -> None:
        allow = token.contract.functions.approve(desk.contract.address, AMOUNT - 1)
        assert desk.chain.send(allow, desk.buyer).refusal is None
        desk.refused(self.opened(desk, token), "fund", by=desk.buyer)
        assert books(desk, token.address) == (0, 0, 0)

    @pytest.mark.parametrize(
        ("habit", "reason"),
        [(REFUSES, "token_refused"), (GARBAGE, ""), (GREEDY, "token_not_exact"), (REVERTS, "not today")],
    )
    def test_what_did_not_leave_is_still_owed(self, desk: Desk, token: Wallet, habit: int, reason: str) -> None:
        self.refunded(desk, token)
        token.behave(habit)
        assert desk.withdraw(desk.buyer, token=token.address).refusal == reason
        assert books(desk, token.address) == (2 * AMOUNT, AMOUNT, AMOUNT)
        token.behave(0)
        assert desk.withdraw(desk.buyer, token=token.address).refusal is None
        assert books(desk, token.address) == (AMOUNT, AMOUNT, 0)

    def test_a_fee_that_came_later_is_the_receivers(self, desk: Desk, token: Wallet) -> None:
        self.refunded(desk, token)
        token.behave(FEE)
        assert desk.withdraw(desk.buyer, token=token.address).refusal is None
        assert balance(token, desk.buyer) == 9 * AMOUNT - 1
        assert books(desk, token.address) == (AMOUNT, AMOUNT, 0)

    @pytest.mark.parametrize("name", ["withdraw", "fund", "refund", "books"])
    def test_a_token_that_is_a_party_finds_every_door_shut(self, desk: Desk, token: Wallet, name: str) -> None:
        """It buys with itself, and sells: nobody could have more rights in the middle of a transfer."""
        own = token.address
        mint = token.contract.functions.mint(own, 10 * AMOUNT)
        allow = token.contract.encode_abi("approve", args=(desk.contract.address, 10 * AMOUNT))
        for call in (mint, token.contract.functions.act(own, allow)):
            assert desk.chain.send(call, desk.stranger).refusal is None
        buying = desk.terms(buyer=own, token=own, amount=AMOUNT)
        held, pending, next_one = (desk.opened(buying, by=desk.seller) for _ in range(3))
        selling = desk.funded(desk.terms(seller=own, amount=AMOUNT))
        assert token.act("fund", held).refusal is None
        desk.done(held, "refund", AMOUNT, by=desk.seller)
        tries = {"withdraw": (own, own), "fund": (next_one,), "refund": (selling, 1), "books": (own,)}
        token.behave(REENTERS, name, *tries[name])
        assert token.act("fund", pending).refusal is None
        assert token.act("withdraw", own, desk.stranger).refusal is None
        assert token.reentered() == (2, 0)
        assert books(desk, own) == (AMOUNT, AMOUNT, 0)
        assert books(desk) == (AMOUNT, AMOUNT, 0)
        assert balance(token, desk.stranger) == AMOUNT
