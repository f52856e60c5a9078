"""A ledger of its own, with a sealer and a folder outside, for tests of seals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncTransaction

from activities.sealing.outside import CheckpointFile
from activities.sealing.sealer import Sealer, Signer
from db import ledger
from db.engine import Role, create_engine, enter_tenant, tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from db.sealing.streams import LEDGER
from domain.ledger import Posting, deposit, transfer
from domain.sealing import merkle
from domain.sealing.records import BatchHead, Entry, entries_of
from kit.signing import SigningKey
from tools.seals.rows import LedgerRows

AT = datetime(2026, 5, 1, tzinfo=UTC)


class Vault:
    """One migrated database, one tenant, one key. Nothing runs by itself: the test seals and signs."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.app = create_engine(url, Role.APP, pool_size=25)
        self.engine = create_engine(url, Role.ENGINE, pool_size=4)
        self.tenant = new_id()
        self.key = SigningKey.generate()
        self.signer = Signer(self.key, folder / "checkpoints", "test", every_seconds=0)
        self.public_key = folder / "seal.pub"
        self.public_key.write_text(self.key.public_pem())
        self.sealer = self.new_sealer()

    def new_sealer(self, *, batch_entries: int = 4, signer: Signer | None = None) -> Sealer:
        """A sealer that remembers nothing, as after a restart."""
        return Sealer(self.engine, signer or self.signer, batch_entries=batch_entries)

    @property
    def file(self) -> CheckpointFile:
        return self.signer.file(LEDGER)

    async def deposit(self, *amounts: int, tenant: UUID | None = None, description: str | None = None) -> list[UUID]:
        """Post deposits in one commit; their ids."""
        whose = tenant or self.tenant
        made = [self.posting(amount, description) for amount in amounts]
        async with tenant_transaction(self.app, whose) as connection:
            await ledger.post(connection, whose, made)
        return [posting.transaction_id for posting in made]

    @staticmethod
    def posting(amount: int, description: str | None = None) -> Posting:
        return deposit(
            f"user {amount % 3}",
            "USDC",
            amount,
            transaction_id=new_id(),
            effective_at=AT,
            reference=str(new_id()),
            description=description,
        )

    @staticmethod
    def move(pair: object, amount: int = 1) -> Posting:
        """From one of a pair's two accounts to the other: pairs do not wait for one another."""
        return transfer(f"{pair} a", f"{pair} b", "USDC", amount, transaction_id=new_id(), effective_at=AT)

    async def fund(self, *pairs: object) -> None:
        """Give each pair's first account something to move."""
        made = [deposit(f"{pair} a", "USDC", 9_999, transaction_id=new_id(), effective_at=AT) for pair in pairs]
        made += [self.move(pair) for pair in pairs]
        async with tenant_transaction(self.app, self.tenant) as connection:
            await ledger.post(connection, self.tenant, made)

    @asynccontextmanager
    async def posting_under_way(self, *postings: Posting) -> AsyncIterator[AsyncTransaction]:
        """Postings that were written but are not committed yet; rolled back unless the test commits."""
        async with self.app.connect() as connection:
            work = await connection.begin()
            try:
                await enter_tenant(connection, self.tenant)
                await ledger.post(connection, self.tenant, postings)
                yield work
            finally:
                if work.is_active:
                    await work.rollback()

    async def seal(self) -> list[int]:
        """Seal what there is; how many entries each batch got."""
        sealed = []
        while entries := await self.sealer.seal(LEDGER):
            sealed.append(entries)
        return sealed

    async def sign(self) -> bool:
        return await self.sealer.checkpoint(LEDGER)

    def ask(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows, read as the superuser."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def tamper(self, *changes: str) -> None:
        """Change what is never changed: as the owner of the server, with every trigger and constraint off."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            for change in changes:
                connection.execute(change.encode())

    def sealed(self) -> list[Entry]:
        """Every entry of every batch, in order."""
        rows = self.ask("SELECT entries FROM seal_batches ORDER BY batch_no")
        return [entry for (raw,) in rows for entry in entries_of(bytes(raw))]

    def reseal(self) -> None:
        """Make every batch anew over the rows as they are now, as someone would who has all but the signing key."""
        changes, edge = [], merkle.Frontier.empty()
        with psycopg.connect(self.url) as connection:
            rows = LedgerRows(connection)
            for number, last, total in self.ask("SELECT batch_no, last_key, total_count FROM seal_batches ORDER BY 1"):
                found = rows.until(last)
                raw = b"".join(e.key.to_bytes(8, signed=True) + e.tenant + e.id + e.leaf for e in found)
                root = merkle.root([entry.leaf for entry in found])
                head = BatchHead("ledger", number, found[0].key, last, len(found), total, root)
                made = {"entries": raw, "root": root, "nodes": b"".join(edge.append(head.leaf()))}
                news = ", ".join(f"{column} = '\\x{value.hex()}'" for column, value in made.items())
                changes.append(f"UPDATE seal_batches SET {news} WHERE batch_no = {number}")
            rows.close()
        self.tamper(*changes)

    async def close(self) -> None:
        await self.app.dispose()
        await self.engine.dispose()


@asynccontextmanager
async def open_vault(url: str, folder: Path) -> AsyncIterator[Vault]:
    """A vault over a migrated database."""
    vault = Vault(url, folder)
    try:
        await make_tenant(vault.app, vault.tenant)
        yield vault
    finally:
        await vault.close()


async def make_tenant(engine: AsyncEngine, tenant: UUID) -> None:
    async with transaction(engine) as connection:
        assert await create_tenant(connection, new_tenant=tenant, name=f"test-{tenant}")
