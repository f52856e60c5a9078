"""Events are numbered without a gap, whatever is reverted, mined together or reorganised; the counter says the last."""

from __future__ import annotations

from tests.contracts.desk import REASON, Desk


def numbers(desk: Desk) -> list[int]:
    return [number for number, _ in desk.history()]


def counter(desk: Desk) -> int:
    return int(desk.read("sequence"))


def test_a_whole_life_is_told_in_order(desk: Desk) -> None:
    terms = desk.terms(inspection_seconds=60)
    escrow_id = desk.opened(terms)
    desk.done(escrow_id, "approve", by=desk.buyer)
    desk.done(escrow_id, "fund", by=desk.buyer, value=100)
    desk.done(escrow_id, "release", 40, by=desk.buyer)
    desk.done(escrow_id, "dispute", REASON, by=desk.seller)
    desk.done(escrow_id, "resolve", 35, 25, by=desk.arbiter)
    assert desk.withdraw(desk.seller, to=desk.stranger).refusal is None
    told = [told for _, told in desk.history()]
    assert [name for name, _ in told] == [
        *("Created", "ApprovalRecorded", "Funded", "Approved", "Released", "Disputed"),
        *("Resolved", "Released", "Refunded", "Withdrawn"),
    ]
    created = dict(told[0][1])
    assert (created.pop("escrow_id"), created.pop("by")) == (escrow_id, desk.buyer)
    assert int.from_bytes(created.pop("reference")) == desk.references
    assert created == vars(terms)
    assert told[-1][1] == {"account": desk.seller, "token": terms.token, "to": desk.stranger, "amount": 75}
    assert numbers(desk) == list(range(1, 11))
    assert counter(desk) == desk.books().sequence == 10


def test_what_is_reverted_takes_no_number(desk: Desk) -> None:
    escrow_id = desk.funded()
    for _ in range(3):
        assert desk.refused(escrow_id, "release", 1, by=desk.buyer) == "milestone_not_approved"
        desk.done(escrow_id, "refund", 1, by=desk.seller)
        assert desk.withdraw(desk.buyer).refusal is None
        assert desk.withdraw(desk.buyer).refusal == "nothing_to_withdraw"
    # Out of gas, a few steps before its end.
    refund = desk.contract.functions.refund(escrow_id, 1)
    with desk.chain.undone():
        enough = desk.chain.send(refund, desk.seller).gas
    assert desk.chain.send(refund, desk.seller, gas=enough - 100).refusal == ""
    desk.done(escrow_id, "refund", 1, by=desk.seller)
    desk.done(escrow_id, "dispute", REASON, by=desk.buyer)
    assert numbers(desk) == list(range(1, 11))
    assert counter(desk) == 10


def test_what_is_mined_together_is_numbered_in_its_order(desk: Desk) -> None:
    escrow_id, chain = desk.funded(), desk.chain
    chain.rpc("evm_setAutomine", False)
    try:
        for by, call in (
            (desk.seller, desk.contract.functions.refund(escrow_id, 60)),
            (desk.buyer, desk.contract.functions.release(escrow_id, 60)),
            (desk.buyer, desk.contract.functions.dispute(escrow_id, REASON)),
            (desk.seller, desk.contract.functions.refund(escrow_id, 40)),
        ):
            asked = {"from": by, "to": desk.contract.address, "data": call._encode_transaction_data()}
            chain.rpc("eth_sendTransaction", {**asked, "gas": hex(500_000), "gasPrice": "0x0"})
        chain.rpc("evm_mine")
    finally:
        chain.rpc("evm_setAutomine", True)
    receipts = chain.rpc("eth_getBlockReceipts", "latest")
    assert sorted(receipt["status"] for receipt in receipts) == ["0x0", "0x1", "0x1", "0x1"]
    assert numbers(desk) == [1, 2, 3, 4, 5]
    assert counter(desk) == 5


def test_a_reorganisation_leaves_no_gap(desk: Desk) -> None:
    escrow_id = desk.funded()
    for _ in range(5):
        desk.done(escrow_id, "refund", 1, by=desk.seller)
    assert counter(desk) == 7
    desk.chain.rpc("anvil_reorg", 3, [])
    assert numbers(desk) == [1, 2, 3, 4]
    assert counter(desk) == 4
    desk.done(escrow_id, "refund", 98, by=desk.seller)
    assert numbers(desk) == [1, 2, 3, 4, 5]
    assert desk.state(escrow_id).status == "refunded"


def test_one_that_is_missing_can_be_asked_for_by_its_number(desk: Desk) -> None:
    escrow_id = desk.funded()
    desk.done(escrow_id, "refund", 7, by=desk.seller)
    wanted = {"fromBlock": "0x0", "address": desk.contract.address, "topics": [None, "0x" + (3).to_bytes(32).hex()]}
    ((number, (name, arguments)),) = desk.decoded(desk.chain.rpc("eth_getLogs", wanted))
    assert (number, name, arguments["amount"]) == (3, "Refunded", 7)
