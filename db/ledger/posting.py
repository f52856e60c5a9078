"""The one way money is posted: lock the accounts in id order, decide each posting, write all in one statement."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Refusal
from domain.ledger import CREDITING, Balance, Controls, Freezes, Limits, Posting, decide

Key = tuple[str, str]

_ENTER = text("SELECT ledger_enter(:tenant)")

#: All the accounts or, when one is not there yet, none: whoever opens accounts must not hold any that others wait for.
#: The column that SELECT … FOR UPDATE needs the right to change is ``version``; see the migration. The ids come from a
#: scalar subquery, which no plan turns into a read of the whole table.
_LOCK = text(
    """
    WITH wanted AS MATERIALIZED (
        SELECT (SELECT a.account_id FROM accounts a
                WHERE a.tenant_id = :tenant AND a.ref = w.ref AND a.asset = w.asset) AS account_id
        FROM unnest(CAST(:refs AS text[]), CAST(:assets AS text[])) AS w (ref, asset)
    )
    SELECT a.account_id, a.ref, a.asset, a.available_minor::text, a.held_minor::text,
           a.min_available_minor::text, a.max_balance_minor::text, a.max_debit_minor::text
    FROM accounts a
    WHERE a.tenant_id = :tenant AND a.account_id = ANY (
        CASE WHEN NOT EXISTS (SELECT FROM wanted WHERE account_id IS NULL)
             THEN ARRAY(SELECT account_id FROM wanted) END
    )
    ORDER BY a.account_id FOR UPDATE OF a
    """
)

_OPEN = text(
    """
    INSERT INTO accounts (tenant_id, ref, asset)
    SELECT CAST(:tenant AS uuid), ref, asset
    FROM unnest(CAST(:refs AS text[]), CAST(:assets AS text[])) AS w (ref, asset) ORDER BY ref, asset
    ON CONFLICT (tenant_id, ref, asset) DO NOTHING
    """
)

_REFERENCES = text(
    """
    SELECT w.n
    FROM unnest(CAST(:kinds AS text[]), CAST(:references AS text[])) WITH ORDINALITY AS w (kind, reference, n)
    WHERE (SELECT true FROM ledger_transactions t
           WHERE t.tenant_id = :tenant AND t.kind = w.kind AND t.reference = w.reference)
    """
)

_INSERT = text(
    """
    WITH headers AS (
        INSERT INTO ledger_transactions
            (tenant_id, transaction_id, kind, reference, description, escrow_id, reverses_id, leg_count, effective_at)
        SELECT :tenant, transaction_id, kind, reference, description, escrow_id, reverses_id, leg_count, effective_at
        FROM unnest(CAST(:ids AS uuid[]), CAST(:kinds AS text[]), CAST(:references AS text[]),
                    CAST(:descriptions AS text[]), CAST(:escrows AS uuid[]), CAST(:reversed AS uuid[]),
                    CAST(:leg_counts AS smallint[]), CAST(:instants AS timestamptz[])) WITH ORDINALITY
            AS h (transaction_id, kind, reference, description, escrow_id, reverses_id, leg_count, effective_at, n)
        ORDER BY n
    ), opened AS (
        INSERT INTO holds (tenant_id, hold_id, account_id, asset, escrow_id)
        SELECT :tenant, hold_id, account_id, asset, escrow_id
        FROM unnest(CAST(:hold_ids AS uuid[]), CAST(:hold_accounts AS bigint[]), CAST(:hold_assets AS text[]),
                    CAST(:hold_escrows AS uuid[])) AS o (hold_id, account_id, asset, escrow_id)
        ON CONFLICT (tenant_id, hold_id) DO NOTHING
    )
    INSERT INTO ledger_legs (tenant_id, transaction_id, leg_no, account_id, asset, pot, amount_minor, hold_id)
    SELECT :tenant, (CAST(:ids AS uuid[]))[n], leg_no, account_id, asset, pot, CAST(amount_minor AS numeric), hold_id
    FROM unnest(CAST(:leg_transactions AS int[]), CAST(:leg_numbers AS smallint[]), CAST(:leg_accounts AS bigint[]),
                CAST(:leg_assets AS text[]), CAST(:leg_pots AS text[]), CAST(:leg_amounts AS text[]),
                CAST(:leg_holds AS uuid[])) AS l (n, leg_no, account_id, asset, pot, amount_minor, hold_id)
    """
)


async def post(connection: AsyncConnection, tenant: UUID, postings: Sequence[Posting]) -> None:
    """Book ``postings``, all or none, in the caller's transaction; a later one may spend what an earlier one brings.

    Raises the first posting's ``Refusal`` (``insufficient_funds``, ``account_frozen``, …). Accounts are opened on
    first use, in the order of their names. Locks are taken in account order, so concurrent postings wait for one
    another and do not deadlock.
    """
    (refusal,) = await post_each(connection, tenant, [postings])
    if refusal is not None:
        raise refusal


async def post_each(
    connection: AsyncConnection, tenant: UUID, chains: Sequence[Sequence[Posting]]
) -> list[Refusal | None]:
    """Book many chains of postings at once, in the order given; answers each chain's refusal, or None where it stands.

    A chain is booked whole or not at all, and what becomes of one does not touch the others. All that stands is
    written by one statement, in the caller's transaction.
    """
    book = await open_book(connection, tenant, chains)
    return await book.post_each(chains)


@dataclass(frozen=True, slots=True)
class Book:
    """The accounts that some postings touch, locked until the commit, with what stands in them."""

    connection: AsyncConnection
    tenant: UUID
    controls: Controls
    accounts: dict[Key, int]
    balances: dict[Key, Balance]

    async def post_each(self, chains: Sequence[Sequence[Posting]]) -> list[Refusal | None]:
        """See ``post_each``; the chains touch no other accounts than those that the book was opened for."""
        taken = await _taken_references(self.connection, self.tenant, chains)
        answers: list[Refusal | None] = []
        standing: list[Posting] = []
        for postings in chains:
            try:
                after = _decide(self.balances, postings, self.controls, taken)
            except Refusal as refusal:
                answers.append(refusal)
                continue
            answers.append(None)
            self.balances.update(after)
            standing.extend(postings)
        if standing:
            await self.connection.execute(_INSERT, {"tenant": self.tenant} | _rows(standing, self.accounts))
        return answers


def _decide(
    balances: dict[Key, Balance], postings: Sequence[Posting], controls: Controls, taken: set[Key]
) -> dict[Key, Balance]:
    """The balances that a chain touches, as it leaves them; ``taken`` gains its references when it stands."""
    if len(postings) == 1 and postings[0].reference is None:
        return decide(balances, postings[0], controls)
    after: dict[Key, Balance] = {}
    named: list[Key] = []
    for posting in postings:
        after |= decide(ChainMap(after, balances), posting, controls)
        if posting.reference is not None:
            name = (posting.kind.value, posting.reference)
            if name in taken or name in named:
                raise Refusal("reference_taken", "the reference names another transaction", field="reference")
            named.append(name)
    taken.update(named)
    return after


async def open_book(connection: AsyncConnection, tenant: UUID, chains: Iterable[Iterable[Posting]]) -> Book:
    """Lock every account that these postings touch, and read what stands: freezes, limits, balances."""
    entered = await connection.scalar(_ENTER, {"tenant": tenant})
    wanted = list({(leg.account, leg.asset): None for leg in _legs(chains)})
    parameters = {"tenant": tenant, "refs": [ref for ref, _ in wanted], "assets": [asset for _, asset in wanted]}
    rows = (await connection.execute(_LOCK, parameters)).all()
    if len(rows) < len(wanted):
        await connection.execute(_OPEN, parameters)
        rows = (await connection.execute(_LOCK, parameters)).all()
    accounts: dict[Key, int] = {}
    balances: dict[Key, Balance] = {}
    limits: dict[Key, Limits] = {}
    for account_id, ref, asset, available, held, *limit in rows:
        accounts[ref, asset] = account_id
        balances[ref, asset] = Balance(int(available), int(held))
        if any(value is not None for value in limit):
            limits[ref, asset] = Limits(*(None if value is None else int(value) for value in limit))
    return Book(connection, tenant, Controls(_freezes(entered), limits), accounts, balances)


def _legs(chains: Iterable[Iterable[Posting]]) -> Iterable[Any]:
    return (leg for posting in chain.from_iterable(chains) for leg in posting.legs)


def _freezes(standing: Sequence[tuple[str, str | None]] | None) -> Freezes:
    found: dict[str, set[str]] = {"account": set(), "asset": set(), "tenant": set()}
    for scope, ref in standing or ():
        found[scope].add(ref or "")
    return Freezes(bool(found["tenant"]), frozenset(found["account"]), frozenset(found["asset"]))


async def _taken_references(connection: AsyncConnection, tenant: UUID, chains: Iterable[Iterable[Posting]]) -> set[Key]:
    """The references of these postings that name a transaction already. Racers that this cannot see yet are refused by
    the unique index, and with them the whole statement."""
    named = [
        (posting.kind.value, posting.reference)
        for posting in chain.from_iterable(chains)
        if posting.reference is not None
    ]
    if not named:
        return set()
    rows = await connection.execute(
        _REFERENCES,
        {"tenant": tenant, "kinds": [kind for kind, _ in named], "references": [reference for _, reference in named]},
    )
    return {named[row.n - 1] for row in rows}


def _rows(postings: Sequence[Posting], accounts: dict[Key, int]) -> dict[str, list[Any]]:
    """The columns of what is written. Arrays instead of rows: the server unnests them several times as fast as it
    parses JSON. A leg names its transaction by its place in the list, counted from 1."""
    legs: list[tuple[Any, ...]] = []
    holds: list[tuple[Any, ...]] = []
    for place, posting in enumerate(postings, start=1):
        for number, leg in enumerate(posting.legs, start=1):
            account_id, hold_id, amount_minor = accounts[leg.account, leg.asset], leg.hold_id, leg.amount_minor
            legs.append((place, number, account_id, leg.asset, leg.pot.value, str(amount_minor), hold_id))
            if hold_id is not None and amount_minor > 0:
                # What a contract owes to an account is of no single escrow.
                escrow_id = None if posting.kind in CREDITING else posting.escrow_id
                holds.append((hold_id, account_id, leg.asset, escrow_id))
    return {
        "ids": [posting.transaction_id for posting in postings],
        "kinds": [posting.kind.value for posting in postings],
        "references": [posting.reference for posting in postings],
        "descriptions": [posting.description for posting in postings],
        "escrows": [posting.escrow_id for posting in postings],
        "reversed": [posting.reverses_id for posting in postings],
        "leg_counts": [len(posting.legs) for posting in postings],
        "instants": [posting.effective_at for posting in postings],
        **_columns(_LEG_COLUMNS, legs),
        **_columns(_HOLD_COLUMNS, holds),
    }


_LEG_COLUMNS = (
    "leg_transactions",
    "leg_numbers",
    "leg_accounts",
    "leg_assets",
    "leg_pots",
    "leg_amounts",
    "leg_holds",
)
_HOLD_COLUMNS = ("hold_ids", "hold_accounts", "hold_assets", "hold_escrows")


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    if not rows:
        return {name: [] for name in names}
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
