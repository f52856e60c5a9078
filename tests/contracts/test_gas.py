"""What each command costs; printed, and bounded so that a change which makes one dearer is noticed."""

from __future__ import annotations

from tests.contracts.desk import ARBITER, BUYER, COIN, REASON, Desk

DAY = 24 * 3600
#: Gas at most, a tenth above what was measured.
LIMITS = {
    "create, few terms": 230_000,
    "create, all terms": 320_000,
    "fund, coins": 120_000,
    "fund, tokens": 160_000,
    "approve": 120_000,
    "release, partly": 130_000,
    "release, the rest": 100_000,
    "refund, all": 130_000,
    "dispute": 70_000,
    "resolve, both parts": 180_000,
    "pass deadline, release": 130_000,
    "cancel": 60_000,
    "withdraw, coins": 80_000,
    "withdraw, tokens": 90_000,
}


def test_what_commands_cost(desk: Desk) -> None:
    token = desk.deploy("token")
    for call, by in (
        (token.functions.mint(desk.buyer, 1000), desk.stranger),
        (token.functions.approve(desk.contract.address, 1000), desk.buyer),
    ):
        desk.chain.send(call, by)
    few = desk.terms(arbiter=COIN)
    all_terms = desk.terms(
        token=token.address,
        approving_roles=BUYER | ARBITER,
        funding_deadline=desk.chain.now + DAY,
        expires_at=desk.chain.now + 2 * DAY,
        inspection_seconds=DAY,
    )
    gas = {}
    first, mined = desk.create(few)
    gas["create, few terms"] = mined.gas
    second, mined = desk.create(all_terms)
    gas["create, all terms"] = mined.gas
    gas["fund, coins"] = desk.done(first, "fund", by=desk.buyer, value=100).gas
    gas["fund, tokens"] = desk.done(second, "fund", by=desk.buyer).gas
    gas["approve"] = desk.done(second, "approve", by=desk.buyer).gas
    desk.done(first, "approve", by=desk.buyer)
    gas["release, partly"] = desk.done(first, "release", 40, by=desk.buyer).gas
    gas["release, the rest"] = desk.done(first, "release", 60, by=desk.buyer).gas
    with desk.chain.undone():
        desk.chain.next_at(desk.chain.now + DAY)
        gas["pass deadline, release"] = desk.done(second, "pass_deadline", by=desk.stranger).gas
    gas["dispute"] = desk.done(second, "dispute", REASON, by=desk.seller).gas
    gas["resolve, both parts"] = desk.done(second, "resolve", 60, 40, by=desk.arbiter).gas
    gas["withdraw, coins"] = desk.withdraw(desk.seller).gas
    gas["withdraw, tokens"] = desk.withdraw(desk.seller, token=token.address).gas
    gas["refund, all"] = desk.done(desk.funded(few), "refund", 100, by=desk.seller).gas
    gas["cancel"] = desk.done(desk.opened(few), "cancel", by=desk.seller).gas
    for name, used in gas.items():
        print(f"gas: {name:<24} {used:>7,}")  # noqa: T201 - the report
    assert gas.keys() == LIMITS.keys()
    assert {name: used for name, used in gas.items() if used > LIMITS[name]} == {}
