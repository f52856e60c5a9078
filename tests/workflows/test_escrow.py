"""An escrow's life through its workflow, on a real Temporal server and a real Postgres."""

from __future__ import annotations

from datetime import timedelta

import pytest

from domain.errors import Refusal
from domain.escrow import Status
from domain.ledger import Balance
from kit.clock import now
from tests.desk import BUYER, SELLER, Desk, terms
from workflows.escrow import ApproveMessage, FundMessage, ReleaseMessage


async def test_an_escrow_is_funded_approved_and_released(desk: Desk) -> None:
    await desk.deposit(BUYER, 5_000_000)
    escrow_id = await desk.open(terms(3_000_000, seller_fee_basis_points=100))
    await desk.command(escrow_id, BUYER, FundMessage())
    assert await desk.balance(BUYER) == Balance(2_000_000, 3_000_000)
    await desk.command(escrow_id, BUYER, ApproveMessage())
    outcome = await desk.command(escrow_id, BUYER, ReleaseMessage())
    assert outcome.status is Status.COMPLETED
    assert await desk.balance(BUYER) == Balance(2_000_000, 0)
    assert await desk.balance(SELLER) == Balance(2_970_000, 0)
    assert await desk.balance("system:fees") == Balance(30_000, 0)
    assert (await desk.row(escrow_id)).status is Status.COMPLETED
    assert await desk.handle(escrow_id).result() == outcome


async def test_a_refusal_names_its_code_and_writes_nothing(desk: Desk) -> None:
    escrow_id = await desk.open(terms())
    with pytest.raises(Refusal) as refused:
        await desk.command(escrow_id, BUYER, FundMessage())
    assert refused.value.code == "insufficient_funds"
    assert (await desk.row(escrow_id)).version == 1
    assert await desk.sql("SELECT 1 FROM ledger_transactions") == []


async def test_terms_that_the_rules_refuse_open_nothing(desk: Desk) -> None:
    with pytest.raises(Refusal) as refused:
        await desk.open(terms(expires_at=now() - timedelta(days=1)))
    assert refused.value.field == "expires_at"
    assert await desk.sql("SELECT 1 FROM escrows") == []
