"""The step of a chain: transfers that are booked together or not at all, in one commit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.transfers.messages import ChainOutcome, ChainRequest, RecordChain
from db import ledger
from db.audit import AuditRecord
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import step
from domain import ledger as rules
from domain.errors import Refusal
from domain.ids import chain_transaction_id, chain_workflow_id
from domain.money import format_minor
from domain.transfers import check_parties

#: What is refused because of the chain as a whole.
_WHOLE = frozenset({"reference_taken", "tenant_frozen"})
#: The input of a link that a refusal is about; what is not listed is about its amount.
_FIELDS = {"asset_frozen": "asset", "account_frozen": None}


class ChainActivities:
    """Steps on linked transfers. ``engine`` acts as the tenants' role; ``doorbell`` wakes the relay."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell) -> None:
        self._engine = engine
        self._doorbell = doorbell

    @activity.defn(name="transfers.post_chain")
    async def post_chain(self, request: RecordChain) -> ChainOutcome:
        """Book the links in their order, all or none; what an earlier one brings, a later one may spend.

        A refusal names the link at fault in its field, as ``transfers.3.amount``. A reference that already names a
        chain of the same content answers that one; with other content it is refused with ``reference_taken``.
        """
        wanted = request.request
        async with tenant_transaction(self._engine, wanted.tenant_id) as connection:
            standing = await _standing(connection, wanted)
        if standing is not None:
            return standing
        try:
            await self._book(request)
        except Refusal:
            # Somebody may have booked the same reference since we looked: then that stands, whatever refused us.
            async with tenant_transaction(self._engine, wanted.tenant_id) as connection:
                standing = await _standing(connection, wanted)
            if standing is None:
                raise
            return standing
        return ChainOutcome(chain_id=wanted.chain_id)

    async def _book(self, request: RecordChain) -> None:
        wanted = request.request
        subject = chain_workflow_id(wanted.chain_id)
        async with step(self._engine, self._doorbell, tenant_id=wanted.tenant_id, step_id=subject) as opened:
            if opened.receipt is not None:
                return
            postings = _postings(wanted, request.at)
            facts = await _facts(opened.connection, wanted)
            try:
                await ledger.post(opened.connection, wanted.tenant_id, postings)
            except Refusal as refusal:
                if refusal.code in _WHOLE:
                    raise
                raise await _named(opened.connection, wanted, postings, refusal) from None
            await opened.finish(
                result={"transaction_ids": [str(posting.transaction_id) for posting in postings]},
                audit=AuditRecord(
                    subject,
                    "ledger.chain_transferred",
                    request.at,
                    wanted.origin.to_origin(subject),
                    {"reference": wanted.reference, "transfers": facts},
                ),
                events=[
                    OutboxEvent(
                        new_id(), SETTLEMENT_TOPIC, "ledger.transferred", f"account:{each['account']}", request.at, each
                    )
                    for each in facts
                ],
            )


async def _named(
    connection: AsyncConnection, wanted: ChainRequest, postings: list[rules.Posting], refusal: Refusal
) -> Refusal:
    """The refusal with the link at fault. Nothing was written, and all that was read is locked: booked one by one, in
    the transaction that ends without a commit, the same link is refused again."""
    for index, posting in enumerate(postings):
        try:
            await ledger.post(connection, wanted.tenant_id, [posting])
        except Refusal as found:
            name = found.field or _FIELDS.get(found.code, "amount")
            return Refusal(found.code, found.message, field=f"transfers.{index}" + (f".{name}" if name else ""))
    return refusal


def _postings(wanted: ChainRequest, at: datetime) -> list[rules.Posting]:
    """The links' postings; the first one carries the chain's reference, for it is unique among transfers."""
    postings = []
    for index, link in enumerate(wanted.links):
        check_parties(link.source, link.target, field=f"transfers.{index}.")
        postings.append(
            rules.transfer(
                link.source,
                link.target,
                link.asset,
                link.amount_minor,
                transaction_id=chain_transaction_id(wanted.chain_id, index),
                effective_at=at,
                reference=wanted.reference if index == 0 else None,
                description=link.description,
            )
        )
    return postings


async def _standing(connection: AsyncConnection, wanted: ChainRequest) -> ChainOutcome | None:
    """What already stands for this request, by its id or by its reference."""
    if await ledger.find_transaction(connection, wanted.chain_id) is not None:
        return ChainOutcome(chain_id=wanted.chain_id)
    if wanted.reference is None:
        return None
    taken = await ledger.find_by_reference(connection, rules.TransactionKind.TRANSFER, wanted.reference)
    if taken is None:
        return None
    chain_id = taken.posting.transaction_id
    # One more than is asked for: a longer chain is another one.
    ids = [chain_transaction_id(chain_id, index) for index in range(len(wanted.links) + 1)]
    found = {each.posting.transaction_id: each.posting for each in await ledger.find_transactions(connection, ids)}
    asked = [(link.source, link.target, link.asset, link.amount_minor, link.description) for link in wanted.links]
    if [_said(found[each]) for each in ids if each in found] != asked:
        raise Refusal("reference_taken", "the reference names other transfers", field="reference")
    return ChainOutcome(chain_id=chain_id)


def _said(posting: rules.Posting) -> tuple[str, str, str, int, str | None]:
    """What a link's transaction says, as a link says it."""
    (payer,) = (leg for leg in posting.legs if leg.amount_minor < 0)
    (payee,) = (leg for leg in posting.legs if leg.amount_minor > 0)
    return payer.account, payee.account, payee.asset, payee.amount_minor, posting.description


async def _facts(connection: AsyncConnection, wanted: ChainRequest) -> list[dict[str, Any]]:
    """What each link moves; refuses ``asset_unknown``."""
    assets = {asset.symbol: asset for asset in await ledger.list_assets(connection)}
    facts = []
    for index, link in enumerate(wanted.links):
        asset = assets.get(link.asset)
        if asset is None:
            raise Refusal("asset_unknown", f"there is no asset {link.asset!r}", field=f"transfers.{index}.asset")
        facts.append(
            {
                "transaction_id": str(chain_transaction_id(wanted.chain_id, index)),
                "chain_id": str(wanted.chain_id),
                "account": link.source,
                "counterparty": link.target,
                "asset": link.asset,
                "amount": format_minor(-link.amount_minor, asset.scale),
                "reference": wanted.reference,
            }
        )
    return facts
