"""The shapes that ledger requests and answers have on the wire, and how answers are made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from api.fields import Amount, DecimalText, Input, Instant, Line, Prose, Symbol, UserId
from db.ledger import LedgerTransaction, TrialBalance
from domain.ledger import Balance, Pot, TransactionKind
from domain.money import Asset, format_minor


class TransferInput(Input):
    """Money that arrives from outside or leaves for it."""

    asset: Symbol
    amount: Amount
    reference: Line | None = Field(
        default=None, description="The outside's name for it; unique per kind. Sent again, it answers the same one"
    )
    description: Prose | None = None
    effective_at: Instant | None = Field(default=None, description="When it counts, if before now")
    actor: UserId | None = Field(default=None, description="The user that it is done for; by default the account's")


class ReversalInput(Input):
    """Why a transaction is taken back."""

    reason: Prose
    effective_at: Instant | None = Field(default=None, description="When it counts, if before now")
    actor: UserId | None = Field(default=None, description="The user that it is done for")


class AssetView(BaseModel):
    """What an amount is counted in. `scale` is the number of decimal places."""

    symbol: str
    scale: int
    chain: str | None
    contract: str | None


class Assets(BaseModel):
    """Every asset of the platform."""

    items: list[AssetView]


class BalanceView(BaseModel):
    """What an account has of one asset."""

    asset: str
    available: DecimalText = Field(description="What the party may use")
    held: DecimalText = Field(description="What holds keep for escrows and pending transfers")
    total: DecimalText


class Balances(BaseModel):
    """The balances of an account, now or at an instant of either clock."""

    account: str
    at: datetime | None = Field(description="The instant at which they were effective; null means now")
    recorded_at: datetime | None = Field(description="The instant at which the books said so; null means now")
    items: list[BalanceView]


class LegView(BaseModel):
    """A change of one pot of one account; the legs of a transaction sum to zero for each asset."""

    account: str
    asset: str
    pot: Pot
    amount: str = Field(description="Signed decimal text: what the pot gains", examples=["-125.500000"])
    hold_id: UUID | None


class TransactionView(BaseModel):
    """A posting. It is never changed: what was wrong is reversed."""

    transaction_id: UUID
    sequence: int = Field(description="The order of recording")
    kind: TransactionKind
    reference: str | None
    description: str | None
    escrow_id: UUID | None
    reverses_id: UUID | None = Field(description="The transaction that this one takes back")
    effective_at: datetime
    recorded_at: datetime
    legs: list[LegView]


def transaction_view(found: LedgerTransaction, assets: Mapping[str, Asset]) -> TransactionView:
    """A transaction as it is answered."""
    posting = found.posting
    return TransactionView(
        transaction_id=posting.transaction_id,
        sequence=found.sequence,
        kind=posting.kind,
        reference=posting.reference,
        description=posting.description,
        escrow_id=posting.escrow_id,
        reverses_id=posting.reverses_id,
        effective_at=posting.effective_at,
        recorded_at=found.recorded_at,
        legs=[
            LegView(
                account=leg.account,
                asset=leg.asset,
                pot=leg.pot,
                amount=format_minor(leg.amount_minor, assets[leg.asset].scale),
                hold_id=leg.hold_id,
            )
            for leg in posting.legs
        ],
    )


def balance_view(asset: Asset, balance: Balance) -> BalanceView:
    """A balance as it is answered."""
    return BalanceView(
        asset=asset.symbol,
        available=format_minor(balance.available_minor, asset.scale),
        held=format_minor(balance.held_minor, asset.scale),
        total=format_minor(balance.available_minor + balance.held_minor, asset.scale),
    )


class TrialBalanceView(BaseModel):
    """One asset over all accounts. `difference` is the sum of the other amounts: zero, or the books are broken."""

    asset: str
    available: str = Field(description="What users may use")
    held: str = Field(description="What escrows and pending transfers hold")
    fees: str = Field(description="What `system:fees` took in")
    external: str = Field(description="What came in from outside, less what went out; negative")
    difference: str


class TrialBalanceList(BaseModel):
    """Every asset that the tenant ever had, by symbol."""

    balanced: bool = Field(description="Whether every difference is zero")
    items: list[TrialBalanceView]


def trial_balance_view(found: list[TrialBalance]) -> TrialBalanceList:
    """The trial balance as it is answered."""
    return TrialBalanceList(
        balanced=all(entry.sum_minor == 0 for entry in found),
        items=[
            TrialBalanceView(
                asset=entry.asset.symbol,
                available=format_minor(entry.available_minor, entry.asset.scale),
                held=format_minor(entry.held_minor, entry.asset.scale),
                fees=format_minor(entry.fees_minor, entry.asset.scale),
                external=format_minor(entry.external_minor, entry.asset.scale),
                difference=format_minor(entry.sum_minor, entry.asset.scale),
            )
            for entry in found
        ],
    )
