"""Deposits, withdrawals and reversals through their workflow."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from db.ids import new_id
from domain.errors import Refusal
from domain.ledger import Balance
from kit.clock import now
from tests.desk import BUYER, Desk
from workflows.ledger import TransferKind


async def test_money_comes_in_and_goes_out(desk: Desk) -> None:
    await desk.deposit(BUYER, 10**30, asset="ETH")
    await desk.deposit(BUYER, 10**30 - 1, asset="ETH", kind=TransferKind.WITHDRAWAL)
    assert await desk.balance(BUYER, "ETH") == Balance(1, 0)
    assert await desk.balance("system:external", "ETH") == Balance(-1, 0)


async def test_nobody_withdraws_what_is_not_there(desk: Desk) -> None:
    with pytest.raises(Refusal) as refused:
        await desk.deposit(BUYER, 1, kind=TransferKind.WITHDRAWAL)
    assert refused.value.code == "insufficient_funds"


async def test_a_reference_names_one_transaction(desk: Desk) -> None:
    first = await desk.deposit(BUYER, 5, reference="tx-1")
    again = await desk.deposit(BUYER, 5, reference="tx-1")
    assert again == first
    with pytest.raises(Refusal) as refused:
        await desk.deposit(BUYER, 6, reference="tx-1")
    assert refused.value.code == "reference_taken"
    assert await desk.balance(BUYER) == Balance(5, 0)


async def test_a_transfer_id_is_booked_once(desk: Desk) -> None:
    transfer_id = new_id()
    for _ in range(3):
        await desk.deposit(BUYER, 7, transfer_id=transfer_id)
    assert await desk.balance(BUYER) == Balance(7, 0)


async def test_a_correction_is_a_reversal_and_happens_once(desk: Desk) -> None:
    booked = await desk.deposit(BUYER, 9)
    changes: dict[str, Any] = {"kind": TransferKind.REVERSAL, "reverses_id": booked.transaction_id, "account": None}
    await desk.deposit(BUYER, 0, "USDC", **changes)
    assert await desk.balance(BUYER) == Balance(0, 0)
    with pytest.raises(Refusal) as refused:
        await desk.deposit(BUYER, 0, "USDC", **changes)
    assert refused.value.code in {"already_reversed", "insufficient_funds"}


async def test_a_transfer_may_count_from_the_past_but_not_from_the_future(desk: Desk) -> None:
    week = timedelta(days=7)
    await desk.deposit(BUYER, 3, effective_at=now() - week)
    assert await desk.balance(BUYER, at=now() - week / 2) == Balance(3, 0)
    assert await desk.balance(BUYER, at=now() - 2 * week) == Balance(0, 0)
    with pytest.raises(Refusal) as refused:
        await desk.deposit(BUYER, 3, effective_at=now() + week)
    assert refused.value.field == "effective_at"
