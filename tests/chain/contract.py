"""A contract without a chain: what it would tell, by the rules of the house, as rows of final events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.chain import rows, sources
from db.engine import tenant_transaction
from db.ids import new_id
from domain.chain import Block, ChainKind, Event, Source
from kit.evm import WORD, interface
from tests.chain.tokens import USDC
from tests.contracts.desk import NOBODY, Ask, Terms, Told
from tests.contracts.oracle import Oracle

BEGAN = 1_770_000_000


def address(name: str) -> str:
    """Somebody's address; a new one for each name."""
    return f"0x{sha256(name.encode()).hexdigest()[:40]}"


def payload_of(kind: str, arguments: Mapping[str, Any]) -> bytes:
    """An event as the contract lays it out."""
    return b"".join(_word(arguments[argument.name]) for argument in interface().kinds[kind].arguments)


def _word(value: Any) -> bytes:
    if isinstance(value, str):
        value = bytes.fromhex(value.removeprefix("0x"))
    return value.rjust(WORD, b"\0") if isinstance(value, bytes) else int(value).to_bytes(WORD)


@dataclass
class Contract:
    """A contract that one tenant's relayer follows: a block for each command, and all of them final once ``write`` is
    asked for it."""

    tenant: UUID
    name: str = field(default_factory=lambda: new_id().hex)
    oracle: Oracle = field(default_factory=Oracle)
    events: list[Event] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    at: int = BEGAN
    written: int = 0
    source: Source = field(init=False)

    def __post_init__(self) -> None:
        here = address(self.name)
        self.buyer, self.seller, self.arbiter, self.stranger = (
            address(f"{self.name} {who}") for who in ("buyer", "seller", "arbiter", "stranger")
        )
        self.source = Source(
            source_id=0,
            tenant_id=self.tenant,
            relayer_id=f"local:{here}",
            chain="local",
            kind=ChainKind.EVM,
            network="eip155:31337",
            addresses=(bytes.fromhex(here[2:]),),
            start_block=1,
            sequenced=True,
            settles=True,
        )

    @property
    def relayer_id(self) -> str:
        return self.source.relayer_id

    def terms(self, **changes: Any) -> Terms:
        given = {"buyer": self.buyer, "seller": self.seller, "arbiter": self.arbiter, "token": USDC}
        return Terms(**given | changes)

    def create(self, terms: Terms | None = None, by: str | None = None, *, seconds: int = 1) -> bytes:
        """Open an escrow; its id."""
        terms = terms or self.terms()
        self.at += seconds
        onchain_id = sha256(f"{self.name} {len(self.oracle.escrows)} {terms}".encode()).digest()
        assert self.oracle.open(onchain_id, terms, self.at) is None
        agreed = dict(zip((each.name for each in fields(terms)), astuple(terms), strict=True))
        created = {"escrow_id": onchain_id, "by": by or terms.buyer, "reference": bytes(32), **agreed}
        self.mine([("Created", created)], first=self.oracle.sequence)
        return onchain_id

    def ask(self, onchain_id: bytes, name: str, *arguments: Any, by: str, value: int = 0, seconds: int = 1) -> Any:
        """Ask something of an escrow; the code of the refusal, or None."""
        self.at += seconds
        before = self.oracle.sequence
        told = self.oracle.ask(onchain_id, Ask(name, arguments, value), by, self.at)
        if isinstance(told, str):
            return told
        self.mine(told, first=before + 1)
        return None

    def done(self, onchain_id: bytes, name: str, *arguments: Any, by: str, value: int = 0, seconds: int = 1) -> None:
        """Ask what must be carried out."""
        refused = self.ask(onchain_id, name, *arguments, by=by, value=value, seconds=seconds)
        assert refused is None, (name, refused)

    def funded(self, terms: Terms | None = None) -> bytes:
        """An escrow that holds its money."""
        terms = terms or self.terms()
        onchain_id = self.create(terms)
        self.done(onchain_id, "fund", by=terms.buyer, value=terms.amount if terms.token == NOBODY else 0)
        return onchain_id

    def withdraw(self, token: str, by: str) -> int:
        self.at += 1
        amount = self.oracle.withdraw(token, by)
        if amount:
            told = {"account": by, "token": token, "to": by, "amount": amount}
            self.mine([("Withdrawn", told)], first=self.oracle.sequence)
        return amount

    def mine(self, told: list[Told], *, first: int) -> None:
        """A block with one transaction that told this."""
        number = len(self.blocks) + 1
        block_hash = sha256(f"{self.name} {number}".encode()).digest()
        parent = self.blocks[-1].hash if self.blocks else bytes(32)
        self.blocks.append(Block(number, block_hash, parent, self.at))
        tx_hash = sha256(block_hash).digest()
        for index, (kind, arguments) in enumerate(told):
            payload = payload_of(kind, {"sequence": first + index, **arguments})
            subject = arguments["account"] if kind == "Withdrawn" else arguments["escrow_id"]
            self.events.append(
                Event(
                    block_number=number,
                    block_hash=block_hash,
                    tx_hash=tx_hash,
                    tx_index=0,
                    log_index=index,
                    ordinal=index,
                    kind=kind,
                    sequence=first + index,
                    subject=_bytes(subject),
                    account=_bytes(arguments.get("account", arguments.get("by"))),
                    token=_bytes(arguments.get("token")),
                    amount=arguments.get("amount"),
                    payload=payload,
                    at_seconds=self.at,
                )
            )

    async def register(self, engine: AsyncEngine) -> None:
        """Have it followed. ``engine`` acts as the role that sees every tenant."""
        async with tenant_transaction(engine, self.tenant) as connection:
            self.source = await sources.register(connection, self.source, follow_from=0, last_sequence=0)

    async def write(self, engine: AsyncEngine, *, final: bool = True) -> None:
        """Write what is new, as a relayer does, and make it final."""
        fresh = self.blocks[self.written :]
        numbers = {block.number for block in fresh}
        async with tenant_transaction(engine, self.tenant) as connection:
            await rows.put_blocks(connection, self.source, fresh)
            events = [event for event in self.events if event.block_number in numbers]
            await rows.copy_events(connection, self.source, events)
            await connection.execute(
                text(
                    "UPDATE chain_cursors SET block_number = :last, confirmed_number = :last,"
                    " finalized_number = CASE WHEN :final THEN :last ELSE finalized_number END,"
                    " last_sequence = :sequence WHERE source_id = :source"
                ),
                {
                    "last": len(self.blocks),
                    "final": final,
                    "sequence": self.events[-1].sequence if self.events else 0,
                    "source": self.source.source_id,
                },
            )
        self.written = len(self.blocks)


def _bytes(value: Any) -> bytes | None:
    return bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else value
