"""The shapes that requests and answers about chains have on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel, Field, StringConstraints

from api.fields import WHOLE, Input, UserId
from db.chain.events import Finality
from domain.chain import ChainKind, RelayerStatus, Settled
from domain.chain.health import Trouble

#: Heights are 64-bit numbers in the database; no chain comes near.
BLOCK_MAX = 2**62
ADDRESSES_MAX = 1_000

ChainName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$"),
    Field(description="What the configuration calls the chain", examples=["mainnet"]),
]
Written = Annotated[
    str,
    StringConstraints(min_length=1, max_length=400, pattern=r"^[\x21-\x7E]+$"),
    Field(examples=["0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419"]),
]
BlockNumber = Annotated[int, WHOLE, Field(ge=0, le=BLOCK_MAX)]
RelayerId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=200,
        pattern=r"^[a-z0-9:_-]+$",
        description="The chain's name and the address, with a colon between",
        examples=["mainnet:0x5f4ec3df9cbd43714fe2740f5e3616155c5b8419"],
    ),
]
Hash = Annotated[str, Field(pattern=r"^0x[0-9a-f]*$", examples=["0x9b1f…"])]
MaybeHash = Annotated[str | None, Field(description="Null where there is none")]


class RelayerInput(Input):
    """What is to be followed, and from where on."""

    chain: ChainName
    contract: Written | None = Field(default=None, description="On an EVM chain: the escrow contract")
    addresses: list[Written] | None = Field(
        default=None,
        min_length=1,
        max_length=ADDRESSES_MAX,
        description="On a UTXO chain: addresses as its network writes them, or output scripts as `script:` and "
        "hexadecimal digits",
    )
    start_block: BlockNumber = Field(description="The first block that can hold an event: that of the deployment")
    follow_from: BlockNumber | None = Field(
        default=None,
        description="Where the live end begins, unless it is named at `start_block`; a backfill brings what is between",
    )
    settles: bool | None = Field(
        default=None, description="Whether its events move escrows here; unless it is said, those of a contract do"
    )


class RelayerCommandInput(Input):
    """Who asks for it."""

    actor: UserId | None = Field(default=None, description="The operator, as the audit log names them")


class RewindInput(RelayerCommandInput):
    """How far back."""

    to_block: BlockNumber = Field(description="The last block that stays; what is final stays in any case")


class HeadView(BaseModel):
    """The end of the chain, when it was last asked."""

    number: int
    at: datetime = Field(description="The block's own time")
    asked_at: datetime


class CursorView(BaseModel):
    """Where the live end stands: everything new up to this block is here."""

    block_number: int = Field(description="One below the first block that is followed, before it is here")
    block_hash: MaybeHash
    block_at: datetime | None = Field(description="The block's own time")
    last_sequence: int = Field(description="The number of the last event up to there; 0 where there is none yet")
    moved_at: datetime | None


class WatermarksView(BaseModel):
    """The last blocks that were seen, that are deep enough to stay, and that are final: money moves up to there."""

    seen: int
    confirmed: int
    finalized: int


class LagView(BaseModel):
    """How far the live end is behind the chain, as the chain was when it was last asked; null before it ever was."""

    blocks: int | None
    seconds: int | None = Field(description="By the chain's own clock, between the last block here and its last")
    silent_seconds: int = Field(description="Since when nothing was heard of the chain")


class TroubleView(BaseModel):
    """Something that is the matter with a relayer."""

    code: Trouble
    message: str


class RelayerView(BaseModel):
    """Who follows a contract, or addresses of interest, and how far it is."""

    relayer_id: str
    chain: str
    network: str = Field(description="The chain's own identity (CAIP-2)", examples=["eip155:1"])
    kind: ChainKind
    addresses: list[str]
    start_block: int
    settles: bool
    status: RelayerStatus
    status_reason: str | None
    registered_at: datetime
    head: HeadView | None = Field(description="Null before the chain was ever asked")
    cursor: CursorView
    watermarks: WatermarksView
    lag: LagView
    healthy: bool
    troubles: list[TroubleView] = Field(description="What is the matter; empty where all is well")


class RangeView(BaseModel):
    """Blocks from one to another, both included."""

    from_block: int
    to_block: int


class GapsView(BaseModel):
    """Blocks between `start_block` and the live end whose events are not here."""

    blocks: int
    being_filled: int = Field(description="Of these, blocks that a backfill is at")
    ranges: list[RangeView] = Field(description="The lowest first, 50 at most")
    more: bool = Field(description="Whether there are further ranges")


class ReorganisationView(BaseModel):
    """Blocks were left for others."""

    ancestor_number: int = Field(description="The last block that both histories have")
    depth: int = Field(description="Blocks that were left")
    old_hash: Hash
    new_hash: Hash
    events_reverted: int
    below_finalized: bool = Field(description="It would leave what was final: the relayer halted instead")
    providers: list[str] = Field(description="Who showed it")
    found_at: datetime


class SettlementView(BaseModel):
    """How far final events have moved escrows. Their numbers run on without a gap."""

    settled_sequence: int = Field(description="Settled up to this number")
    final_sequence: int = Field(description="The number of the last event that is final")
    waiting: int = Field(description="Events between the two")


class ProviderView(BaseModel):
    """How a provider of the chain does, as it was last seen by whoever asked it."""

    provider: str
    status: str = Field(description="`ok`, `lagging`, `down`, `accused` (it was caught lying) or `wrong_chain`")
    reason: str | None
    head_number: int | None
    latency_ms: int | None
    requests: int
    failures: int
    range_blocks: int | None = Field(description="How many blocks it is asked for at once, as was learned")
    status_at: datetime
    seen_at: datetime


class RelayerDetail(RelayerView):
    """One relayer, with what is missing, how its providers do, and what was settled."""

    gaps: GapsView
    last_reorganisation: ReorganisationView | None
    settlement: SettlementView | None = Field(description="Null where its events move nothing")
    providers: list[ProviderView] = Field(description="Of its chain; empty before any was asked")


class ChainEventView(BaseModel):
    """An event of the chain, as one block has it."""

    relayer_id: str
    chain: str
    consumer_id: UUID = Field(description="Stays the same when its transaction is mined again")
    kind: str = Field(examples=["Funded"])
    sequence: int | None = Field(description="Its number in the contract's one sequence")
    subject: str | None = Field(description="What it is about: an escrow's id on chain, or an address")
    escrow_id: UUID | None = Field(description="The escrow here that follows the one on chain, once it is settled")
    account: str | None
    token: str | None = Field(description="Zeros are the chain's own coin")
    asset: str | None = Field(description="What the token is called here, where the configuration says so")
    amount: str | None = Field(description="In the token's smallest unit", examples=["1000000000000000000"])
    args: dict[str, Any] | None = Field(
        description="Everything that the event says, by the contract's names; whole numbers as text"
    )
    block_number: int
    block_hash: Hash
    tx_hash: Hash
    tx_index: int
    log_index: int
    at: datetime = Field(description="The block's own time")
    canonical: bool = Field(description="False: its block was left")
    finality: Finality | None = Field(description="Null where its block was left")
    outcome: Settled | None = Field(description="What settling it came to")
    outcome_code: str | None
    recorded_at: datetime


class RelayerHealthView(BaseModel):
    """One relayer that is well."""

    relayer_id: str
    status: RelayerStatus
    lag: LagView


class ChainHealthView(BaseModel):
    """Every relayer is well."""

    status: Literal["ok"] = "ok"
    relayers: list[RelayerHealthView]
