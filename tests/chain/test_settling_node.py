"""The compiled contract on a real node, read as it is, settled here: the escrows and the books are the contract's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from activities.chain.ports import Lane
from activities.vendors.evm import EvmReader
from domain.chain import Block, Books, Source
from tests.anvil import running
from tests.chain.books import ModelChain, compared
from tests.chain.desk import ChainDesk
from tests.contracts.desk import ARBITER, BUYER, COIN, REASON, Desk


class NodeBooks(ModelChain):
    """A chain that asks a real node for the contract's books."""

    reader: EvmReader

    async def books(self, source: Source, token: bytes, block: Block, lane: Lane) -> Books | None:
        return await self.reader.books(source, token, block)


async def test_escrows_of_the_compiled_contract_are_settled(tmp_path: Path, chain_desk: ChainDesk) -> None:
    with running(tmp_path) as chain:
        desk = Desk(chain)
        terms = desk.terms(approving_roles=BUYER | ARBITER, inspection_seconds=60)
        disputed = desk.funded(terms)
        desk.done(disputed, "approve", by=desk.buyer)
        desk.done(disputed, "release", 30, by=desk.buyer)
        desk.done(disputed, "refund", 20, by=desk.seller)
        desk.done(disputed, "dispute", REASON, by=desk.seller)
        desk.done(disputed, "resolve", 10, 40, by=desk.arbiter)
        expiring = desk.funded(desk.terms(expires_at=chain.now + 100))
        chain.next_at(chain.now + 200)
        desk.done(expiring, "pass_deadline", by=desk.stranger)
        open_still = desk.funded()
        desk.withdraw(desk.buyer)

        contract = chain_desk.contract
        address = bytes.fromhex(str(desk.contract.address)[2:])
        contract.source = replace(contract.source, addresses=(address,), relayer_id=f"local:0x{address.hex()}")
        reader = EvmReader("node", chain.url)
        try:
            last = (await reader.head()).latest.number
            contract.blocks = list(await reader.blocks(range(1, last + 1)))
            times = {block.number: block.at_seconds for block in contract.blocks}
            events = await reader.events(contract.source, 1, last)
            contract.events = [event._replace(at_seconds=times[event.block_number]) for event in events]
            settled = await chain_desk.follow()
            assert settled.settled == settled.count == len(events) == desk.read("sequence")
            for onchain_id in (disputed, expiring, open_still):
                here, there = await chain_desk.escrow(onchain_id), desk.state(onchain_id)
                assert here is not None
                (milestone,) = here.milestones
                assert (milestone.status, milestone.released_minor, milestone.refunded_minor) == (
                    there.status,
                    there.released,
                    there.refunded,
                )
            asked = NodeBooks(contract)
            asked.reader = reader
            assert await compared(chain_desk, asked) == {COIN: []}
        finally:
            await reader.close()
