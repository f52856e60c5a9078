"""Reconciliation with contracts: read what each says of its money, compare it with its events and the ledger."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.chain.messages import (
    BooksCompared,
    ChainSettlementRun,
    CompareBooks,
    ReadBooks,
    SettlingSource,
    SourcesWanted,
    TokenBooks,
)
from activities.chain.ports import ChainDesk, Lane
from activities.chain.settling import Tokens
from db.audit import AuditRecord, Origin
from db.chain import books, sources
from db.chain.books import Compared
from db.doorbell import Doorbell
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import step
from domain.chain import Block, Books, Source
from domain.chain.books import Part, compare, explained, unexplained
from domain.errors import Refusal
from domain.ids import relayer_workflow_id

RECONCILED: Final = "chain.books_reconciled"
DIFFER: Final = "chain.books_differ"

_log = logging.getLogger(__name__)
_differing = Gauge("holdfast_chain_books_unexplained", "Tokens of a contract that just differ", ["relayer"])


class BooksReadingActivities:
    """``engine`` sees every tenant; ``desks`` are the chains by name."""

    def __init__(self, engine: AsyncEngine, desks: Mapping[str, ChainDesk], tokens: Tokens) -> None:
        self._engine = engine
        self._desks = desks
        self._tokens = tokens

    @activity.defn(name="chain.read_books")
    async def read(self, run: ChainSettlementRun) -> ReadBooks:
        """What a contract says of its money as of the last final block, in each token that it held and the desk knows.

        Raises ``Unavailable`` where its chain does not answer, and refuses ``chain_unknown``.
        """
        async with tenant_transaction(self._engine, run.tenant_id) as connection:
            source = await _source(connection, run)
            block = await books.final_block(connection, source.source_id)
            known = [bytes.fromhex(token[2:]) for token in self._tokens.get(source.chain, {})]
            tokens = await books.tokens_of(connection, source.source_id, known)
        if block is None or not tokens:
            return ReadBooks(block_number=0 if block is None else block.number, block_hash="0x")
        desk = self._desks.get(source.chain)
        if desk is None:
            raise Refusal("chain_unknown", f"the configuration of this worker has no chain {source.chain}")
        told, unread = [], 0
        for token in tokens:
            said = await desk.books(source, token, block, Lane.JOB)
            if said is not None:
                told.append(
                    TokenBooks(
                        token=f"0x{token.hex()}",
                        sequence=said.sequence,
                        balance=said.balance,
                        held=said.held,
                        owed=said.owed,
                    )
                )
            else:
                unread += 1
        return ReadBooks(
            block_number=block.number, block_hash=f"0x{block.hash.hex()}", books=tuple(told), unread=unread
        )


class ChainBooksActivities:
    """``tenants`` acts under row-level security, ``engine`` sees every tenant."""

    def __init__(self, tenants: AsyncEngine, engine: AsyncEngine, doorbell: Doorbell, tokens: Tokens) -> None:
        self._tenants = tenants
        self._engine = engine
        self._doorbell = doorbell
        self._tokens = tokens

    @activity.defn(name="chain.list_settling")
    async def list_settling(self, wanted: SourcesWanted) -> list[SettlingSource]:
        """The next relayers whose events move escrows, in the order of their registration."""
        async with transaction(self._engine) as connection:
            found = await sources.list_settling(connection, after=wanted.after, limit=wanted.limit)
        return [
            SettlingSource(
                source_id=each.source_id,
                run=ChainSettlementRun(tenant_id=each.tenant_id, relayer_id=each.relayer_id),
            )
            for each in found
        ]

    @activity.defn(name="chain.compare_books")
    async def compare(self, asked: CompareBooks) -> BooksCompared:
        """Compare, keep and tell what came of it; one commit."""
        run, read = asked.run, asked.read
        step_id = f"{relayer_workflow_id(run.relayer_id)}:books:{asked.step}"
        async with step(self._tenants, self._doorbell, tenant_id=run.tenant_id, step_id=step_id) as opened:
            if opened.receipt is not None:
                return BooksCompared.model_validate(opened.receipt)
            source = await _source(opened.connection, run)
            block = Block(read.block_number, bytes.fromhex(read.block_hash[2:]), b"", 0)
            compared = [await self._compare(opened.connection, source, block, told) for told in read.books]
            await books.put(opened.connection, run.tenant_id, source.source_id, compared)
            differing = [each for each in compared if unexplained(each.parts)]
            result = BooksCompared(tokens=len(compared), differing=len(differing))
            facts = [_facts(source, each) for each in compared]
            origin = Origin(workflow_id=activity.info().workflow_id)
            await opened.finish(
                result=result.model_dump(mode="json"),
                audit=AuditRecord(
                    relayer_workflow_id(run.relayer_id), "chain.books_compared", asked.at, origin, {"books": facts}
                ),
                events=[_event(source, each, told, asked) for each, told in zip(compared, facts, strict=True)],
            )
        _differing.labels(run.relayer_id).set(len(differing))
        for each in differing:
            _log.error(
                "the books of %s differ and nobody knows why: %s",
                run.relayer_id,
                _detail(each.parts),
                extra={"tenant_id": str(run.tenant_id), "token": each.token.hex()},
            )
        return result

    async def _compare(self, connection: AsyncConnection, source: Source, block: Block, told: TokenBooks) -> Compared:
        token = bytes.fromhex(told.token[2:])
        asset = self._tokens[source.chain][told.token].asset
        said = Books(told.sequence, told.balance, told.held, told.owed)
        found = await books.figures(
            connection, source.tenant_id, source.source_id, source.relayer_id, token, asset, said
        )
        return Compared(token, block, found, compare(found))


async def _source(connection: AsyncConnection, run: ChainSettlementRun) -> Source:
    found = await sources.find(connection, run.relayer_id)
    if found is None:
        raise Refusal("relayer_unknown", f"there is no relayer {run.relayer_id}")
    return found.source


def _facts(source: Source, each: Compared) -> dict[str, Any]:
    said, ledger = each.figures.books, each.figures.ledger
    return {
        "relayer_id": source.relayer_id,
        "token": f"0x{each.token.hex()}",
        "block_number": each.block.number,
        "balance": str(said.balance),
        "held": str(said.held),
        "owed": str(said.owed),
        "ledger_held": str(ledger.held),
        "ledger_owed": str(ledger.owed),
        "explained": str(explained(each.parts)),
        "unexplained": str(unexplained(each.parts)),
        "detail": _detail(each.parts),
    }


def _detail(parts: tuple[Part, ...]) -> str:
    """What differs, in words; unexplained ones first."""
    ordered = sorted(parts, key=lambda part: part.explained)
    told = [f"{part.code} ({part.what}) {part.amount:+d}" for part in ordered]
    return "; ".join(told) or "all agree"


def _event(source: Source, each: Compared, facts: dict[str, Any], asked: CompareBooks) -> OutboxEvent:
    return OutboxEvent(
        new_id(),
        SETTLEMENT_TOPIC,
        DIFFER if unexplained(each.parts) else RECONCILED,
        relayer_workflow_id(source.relayer_id),
        asked.at,
        facts,
    )
