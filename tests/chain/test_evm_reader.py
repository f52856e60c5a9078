"""A reader on a real node: what web3.py says of the contract is what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from activities.chain.ports import ChainFault, FaultKind
from activities.vendors.evm import EvmReader
from domain.chain import Books, Source
from kit.evm import decode, interface
from tests.anvil import running
from tests.chain.reading import contract_source
from tests.contracts.desk import ARBITER, BUYER, REASON, Desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An escrow through each of the contract's events, and a number of blocks behind it."""
    with running(tmp_path_factory.mktemp("anvil")) as chain:
        desk = Desk(chain)
        _everything_told(desk)
        chain.rpc("anvil_mine", "0x5")
        yield desk


@pytest.fixture
def source(desk: Desk) -> Source:
    return contract_source(desk.contract.address, chain_id=desk.chain.chain_id)


@pytest.fixture
async def reader(desk: Desk) -> AsyncIterator[EvmReader]:
    reader = EvmReader("local", desk.chain.url)
    yield reader
    await reader.close()


def _everything_told(desk: Desk) -> None:
    terms = desk.terms(approving_roles=BUYER | ARBITER, inspection_seconds=60)
    escrow_id = desk.funded(terms)
    desk.done(escrow_id, "approve", by=desk.buyer)
    desk.done(escrow_id, "release", 30, by=desk.buyer)
    desk.done(escrow_id, "refund", 20, by=desk.seller)
    desk.done(escrow_id, "dispute", REASON, by=desk.seller)
    desk.done(escrow_id, "resolve", 10, 40, by=desk.arbiter)
    desk.done(desk.opened(), "cancel", by=desk.seller)
    expiring = desk.funded(desk.terms(expires_at=desk.chain.now + 100))
    desk.chain.next_at(desk.chain.now + 200)
    desk.done(expiring, "pass_deadline", by=desk.stranger)
    desk.withdraw(desk.buyer)


async def test_it_reads_every_event_as_web3_does(desk: Desk, source: Source, reader: EvmReader) -> None:
    head = await reader.head()
    events = await reader.events(source, 0, head.latest.number)
    told = desk.history()
    assert len(events) == len(told) > 14
    assert {event.kind for event in events} == set(interface().kinds)
    for event, (sequence, (kind, arguments)) in zip(events, told, strict=True):
        assert (event.kind, event.sequence) == (kind, sequence)
        assert decode(event.kind, event.payload) == {"sequence": sequence, **_plain(arguments)}
        assert event.amount == arguments.get("amount")
        assert event.token == _bytes(arguments.get("token"))
        assert event.account == _bytes(arguments.get("account", arguments.get("by")))
        assert event.subject == arguments.get("escrow_id", event.account)


async def test_heads_headers_and_counters_are_the_nodes_own(desk: Desk, source: Source, reader: EvmReader) -> None:
    assert await reader.network() == source.network
    head = await reader.head()
    assert head.finalized is not None
    assert head.finalized <= head.latest.number
    blocks = await reader.blocks(range(head.latest.number + 1))
    assert [block.number for block in blocks] == list(range(head.latest.number + 1))
    assert all(block.parent_hash == before.hash for before, block in pairwise(blocks))
    assert blocks[-1] == head.latest
    events = await reader.events(source, 0, head.latest.number)
    for block in blocks:
        there = [event for event in events if event.block_number == block.number]
        assert await reader.events_of(source, block) == there
        assert all(event.block_hash == block.hash and event.at_seconds in (0, block.at_seconds) for event in there)
        last = [event.sequence for event in events if event.block_number <= block.number]
        # The contract stands from block 1 on.
        assert await reader.counter(source, block) == ((last or [0])[-1] if block.number else None)
    said, told = await reader.books(source, bytes(20), head.latest), desk.books()
    assert said == Books(told.sequence, told.balance, told.held, told.owed)
    assert await reader.books(source, bytes(20), blocks[0]) is None


async def test_a_block_that_is_not_there_is_behind(desk: Desk, source: Source, reader: EvmReader) -> None:
    head = await reader.head()
    unknown = head.latest._replace(hash=bytes(31) + b"\x01")
    beyond = head.latest.number + 1
    asks: list[Callable[[], Awaitable[object]]] = [
        lambda: reader.blocks([beyond - 1, beyond]),
        lambda: reader.events(source, beyond, beyond + 10),
        lambda: reader.events_of(source, unknown),
        lambda: reader.counter(source, unknown),
    ]
    for ask in asks:
        with pytest.raises(ChainFault) as fault:
            await ask()
        assert fault.value.kind is FaultKind.BEHIND, fault.value.message


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: _said(value) for name, value in arguments.items()}


def _said(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return value.lower() if isinstance(value, str) else value


def _bytes(address: str | None) -> bytes | None:
    return None if address is None else bytes.fromhex(address[2:])
