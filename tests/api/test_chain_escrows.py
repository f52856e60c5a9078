"""An escrow whose money a contract keeps, over HTTP: what is shown of it, and what is refused."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.api.caller import Caller, ok, refused
from tests.chain.desk import ChainDesk
from tests.chain.tokens import USDC
from tests.polling import eventually
from tests.prices import set_prices


@pytest.fixture
def chain_desk(tenants_engine: AsyncEngine, engine: AsyncEngine, tenant: UUID) -> ChainDesk:
    return ChainDesk(tenants_engine, engine, tenant)


async def test_it_is_shown_with_what_its_contract_told(service: Caller, chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    onchain_id = contract.funded()
    await chain_desk.follow()
    contract.done(onchain_id, "approve", by=contract.buyer)
    await contract.write(chain_desk.engine, final=False)
    path = f"escrows/{chain_desk.escrow_id(onchain_id)}"
    shown = ok(await service.get(path))
    assert (shown["custody"], shown["status"], shown["remaining"]) == ("chain", "funded", "0.000100")
    assert shown["buyer"] == {"user_id": contract.buyer, "address": contract.buyer}
    on_chain = shown["on_chain"]
    assert (on_chain["relayer_id"], on_chain["onchain_id"]) == (contract.relayer_id, f"0x{onchain_id.hex()}")
    assert on_chain["token"] == USDC
    told = [(event["kind"], event["sequence"], event["outcome"]) for event in on_chain["events"]]
    assert told == [
        ("Created", 1, "settled"),
        ("Funded", 2, "settled"),
        ("ApprovalRecorded", 3, None),
        ("Approved", 4, None),
    ]
    assert on_chain["events"][1]["tx_hash"] == f"0x{contract.events[1].tx_hash.hex()}"
    listed = ok(await service.get("escrows", onchain_id=f"0x{onchain_id.hex().upper()}"))["items"]
    assert listed == [shown | {"on_chain": on_chain | {"events": None}}]
    (_, funded) = ok(await service.get(f"{path}/timeline"))["items"]
    assert (funded["actor"], funded["details"]["tx_hash"]) == (contract.buyer, on_chain["events"][1]["tx_hash"])
    # Its money is on hold, and nobody's to spend.
    assert await service.balance(contract.buyer) == ("0.000000", "0.000100")


async def test_the_desk_is_not_asked(service: Caller, chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    onchain_id = contract.funded()
    await chain_desk.follow()
    path = f"escrows/{chain_desk.escrow_id(onchain_id)}"
    for command in ("approvals", "release", "cancel"):
        refused(await service.post(f"{path}/{command}", {"actor": contract.buyer}), 409, "escrow_on_chain")
    waiting = ok(await service.get(f"{path}/waiting"))
    assert waiting["next_deadline"] is None


async def test_what_a_contract_holds_counts_as_collateral(
    service: Caller, chain_desk: ChainDesk, engine: AsyncEngine
) -> None:
    """The seller's, as the tenant decided: 1300 DAI against 1 ETH is a warning, and with 500 USDC on chain none."""
    await set_prices(engine, ETH=2_000, BTC=60_000, USDC=1, USDT=1, DAI=1)
    contract = chain_desk.contract
    debt = {
        "user_id": contract.seller,
        "collateral_positions": {"ETH": 1},
        "borrow_positions": {"DAI": 1300},
    }
    ok(await service.send("PUT", "margin/settings", {"escrow_collateral": "seller"}))
    assert ok(await service.post("margin/health", debt))["status"] == "WARNING"
    onchain_id = contract.funded(contract.terms(amount=500_000_000))
    await chain_desk.follow()

    async def stands(status: str, *origins: str) -> bool:
        found = ok(await service.get(f"margin/health/{contract.seller}"))
        return found["status"] == status and [line["origin"] for line in found["collateral_breakdown"]] == list(origins)

    await eventually(lambda: stands("HEALTHY", "declared", "escrow"))
    contract.done(onchain_id, "refund", 500_000_000, by=contract.seller)
    await chain_desk.follow()
    await eventually(lambda: stands("WARNING", "declared"))
