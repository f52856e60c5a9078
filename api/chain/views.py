"""From what is stored about chains to what is shown of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from api.chain.models import (
    ChainEventView,
    CursorView,
    GapsView,
    HeadView,
    LagView,
    ProviderView,
    RangeView,
    RelayerDetail,
    RelayerView,
    ReorganisationView,
    SettlementView,
    TroubleView,
    WatermarksView,
)
from db.chain.events import Listed
from db.chain.reports import Gaps, Provider, Reorganisation, Standing
from domain.chain import ChainKind
from domain.chain.addresses import write_address
from domain.chain.health import Course, Limits, troubles
from kit import evm
from kit.chains import ChainsConfig, EvmChain


def limits_of(chains: ChainsConfig, chain: str) -> Limits | None:
    """How far behind relayers of a chain may be; None where the configuration does not know it."""
    found = chains.chains.get(chain)
    return None if found is None else Limits(found.lag_blocks_max, found.lag_seconds_max, found.still_seconds_max)


def lag_view(course: Course, at: datetime) -> LagView:
    """How far behind it is."""
    return LagView(blocks=course.lag_blocks, seconds=course.lag_seconds, silent_seconds=course.silent_seconds(at))


def relayer_view(standing: Standing, limits: Limits | None, at: datetime) -> RelayerView:
    """A relayer as a list shows it."""
    return RelayerView(**_common(standing, limits, at))


def detail_view(
    standing: Standing,
    limits: Limits | None,
    at: datetime,
    *,
    gaps: Gaps,
    reorganisation: Reorganisation | None,
    final_sequence: int,
    providers: Sequence[Provider],
) -> RelayerDetail:
    """A relayer by itself."""
    settlement = None
    if standing.followed.source.settles:
        settled = standing.settled_sequence
        settlement = SettlementView(
            settled_sequence=settled, final_sequence=final_sequence, waiting=max(final_sequence - settled, 0)
        )
    return RelayerDetail(
        **_common(standing, limits, at),
        gaps=GapsView(
            blocks=gaps.blocks,
            being_filled=gaps.being_filled,
            ranges=[RangeView(from_block=first, to_block=last) for first, last in gaps.ranges],
            more=gaps.more,
        ),
        last_reorganisation=None if reorganisation is None else _reorganisation_view(reorganisation),
        settlement=settlement,
        providers=[_provider_view(provider) for provider in providers],
    )


def event_view(event: Listed, chains: ChainsConfig) -> ChainEventView:
    """An event as it is shown."""
    kind = ChainKind(event.chain_kind)
    return ChainEventView(
        relayer_id=event.relayer_id,
        chain=event.chain,
        consumer_id=event.consumer_id,
        kind=event.kind,
        sequence=event.sequence,
        subject=_subject(kind, event),
        escrow_id=event.escrow_id,
        account=None if event.account is None else write_address(kind, event.network, event.account),
        token=_hex(event.token),
        asset=_asset(chains, event),
        amount=None if event.amount is None else str(event.amount),
        args=_args(kind, event),
        block_number=event.block_number,
        block_hash=f"0x{event.block_hash.hex()}",
        tx_hash=f"0x{event.tx_hash.hex()}",
        tx_index=event.tx_index,
        log_index=event.log_index,
        at=event.at,
        canonical=event.canonical,
        finality=event.finality,
        outcome=event.outcome,
        outcome_code=event.outcome_code,
        recorded_at=event.recorded_at,
    )


def _common(standing: Standing, limits: Limits | None, at: datetime) -> dict[str, Any]:
    source, course = standing.followed.source, standing.course
    head = None
    if course.head_number is not None and course.head_at is not None and course.heard_at is not None:
        head = HeadView(number=course.head_number, at=course.head_at, asked_at=course.heard_at)
    found = troubles(course, limits, at)
    return {
        "relayer_id": source.relayer_id,
        "chain": source.chain,
        "network": source.network,
        "kind": source.kind,
        "addresses": [write_address(source.kind, source.network, address) for address in source.addresses],
        "start_block": source.start_block,
        "settles": source.settles,
        "status": course.status,
        "status_reason": course.reason,
        "registered_at": course.registered_at,
        "head": head,
        "cursor": CursorView(
            block_number=course.block_number,
            block_hash=_hex(standing.block_hash),
            block_at=course.block_at,
            last_sequence=standing.last_sequence,
            moved_at=standing.moved_at,
        ),
        "watermarks": WatermarksView(
            seen=course.block_number, confirmed=standing.confirmed_number, finalized=standing.finalized_number
        ),
        "lag": lag_view(course, at),
        "healthy": not found,
        "troubles": [TroubleView(code=code, message=message) for code, message in found],
    }


def _reorganisation_view(found: Reorganisation) -> ReorganisationView:
    return ReorganisationView(
        ancestor_number=found.ancestor_number,
        depth=found.depth,
        old_hash=f"0x{found.old_hash.hex()}",
        new_hash=f"0x{found.new_hash.hex()}",
        events_reverted=found.events_reverted,
        below_finalized=found.below_finalized,
        providers=list(found.providers),
        found_at=found.found_at,
    )


def _provider_view(found: Provider) -> ProviderView:
    return ProviderView(
        provider=found.provider,
        status=found.status,
        reason=found.reason,
        head_number=found.head_number,
        latency_ms=found.latency_ms,
        requests=found.requests,
        failures=found.failures,
        range_blocks=found.range_blocks,
        status_at=found.status_at,
        seen_at=found.seen_at,
    )


def _subject(kind: ChainKind, event: Listed) -> str | None:
    if event.subject is None or kind is ChainKind.EVM:
        return _hex(event.subject)
    return write_address(kind, event.network, event.subject)


def _hex(value: bytes | None) -> str | None:
    return None if value is None else f"0x{value.hex()}"


def _asset(chains: ChainsConfig, event: Listed) -> str | None:
    chain = chains.chains.get(event.chain)
    if chain is None or event.amount is None:
        return None
    if not isinstance(chain, EvmChain):
        return chain.asset
    token = None if event.token is None else chain.tokens.get(f"0x{event.token.hex()}")
    return None if token is None else token.asset


def _args(kind: ChainKind, event: Listed) -> dict[str, Any] | None:
    """Numbers as text: most readers of JSON keep 53 bits of one. What cannot be read is not shown."""
    if kind is not ChainKind.EVM:
        return None
    try:
        said = evm.decode(event.kind, event.payload)
    except evm.EventInvalid:
        return None
    return {name: str(value) if isinstance(value, int) else value for name, value in said.items()}
