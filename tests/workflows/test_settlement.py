"""Settlement commands on the real server: two lanes, one outcome each, in the order received."""

from __future__ import annotations

from domain.ledger import Balance
from tests.commands import command, finished, take, wake
from tests.desk import BUYER, SELLER, Desk, terms
from workflows.escrow import ApproveMessage


async def test_commands_on_the_ledger_are_settled_or_rejected(desk: Desk) -> None:
    commands = [
        command("deposit", 1_000),
        command("transfer", 400),
        command("withdrawal", 700),
        command("withdrawal", 600),
    ]
    await take(desk.engine, desk.tenant, commands)
    run = await wake(desk.client, desk.tenant)
    found = await finished(desk.engine, desk.tenant, commands)
    assert [one.status for one in found] == ["SETTLED", "SETTLED", "REJECTED", "SETTLED"]
    assert found[2].outcome is not None
    assert found[2].outcome.code == "insufficient_funds"
    assert (await desk.balance(BUYER), await desk.balance(SELLER)) == (Balance(0), Balance(400))
    assert (await run.result()).settled == 3


async def test_an_escrow_is_funded_and_released_by_commands(desk: Desk) -> None:
    escrow_id = await desk.open(terms(600_000, 400_000))
    first = [
        command("deposit", 1_500_000),
        command("escrow_fund", 1_000_000, escrow_id=escrow_id),
        command("withdrawal", 600_000),
        command("withdrawal", 500_000),
    ]
    await take(desk.engine, desk.tenant, first)
    await wake(desk.client, desk.tenant)
    found = await finished(desk.engine, desk.tenant, first)
    assert [one.status for one in found] == ["SETTLED", "SETTLED", "REJECTED", "SETTLED"], found
    await desk.command(escrow_id, BUYER, ApproveMessage())
    second = [command("escrow_release", 1_000_000, escrow_id=escrow_id), command("withdrawal", 1, SELLER)]
    await take(desk.engine, desk.tenant, second)
    await wake(desk.client, desk.tenant)
    found = await finished(desk.engine, desk.tenant, second[:1])
    assert found[0].status == "SETTLED"
    assert found[0].outcome is not None
    assert found[0].outcome.transaction_id is not None
    assert (await desk.row(escrow_id)).status == "completed"
