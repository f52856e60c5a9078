"""A reader on a real node: what web3.py says of the contract is what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

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


async def test_books_are_the_contracts_own(desk: Desk, source: Source, reader: EvmReader) -> None:
    head = (await reader.head()).latest
    said, told = await reader.books(source, bytes(20), head), desk.books()
    assert said == Books(told.sequence, told.balance, told.held, told.owed)
    (before,) = await reader.blocks([0])
    assert await reader.books(source, bytes(20), before) is None


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: _said(value) for name, value in arguments.items()}


def _said(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return value.lower() if isinstance(value, str) else value


def _bytes(address: str | None) -> bytes | None:
    return None if address is None else bytes.fromhex(address[2:])
