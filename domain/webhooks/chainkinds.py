"""The types of events of chains and of backfills. Amounts are in a token's smallest unit; hashes and addresses are
hexadecimal with 0x, or what a UTXO chain's network writes."""

from __future__ import annotations

from typing import Final

from domain.webhooks.shapes import AT, COUNT, ID, MAYBE, TEXT, YES, EventKind, data_of

_MAYBE_COUNT: Final = {"type": ["integer", "null"]}
_NAMES: Final = {"type": "array", "items": TEXT}
_DIGITS: Final = {"type": "string", "pattern": "^-?[0-9]+$"}
_MAYBE_DIGITS: Final = {"type": ["string", "null"], "pattern": "^-?[0-9]+$"}

_SEEN: Final = data_of(
    relayer_id=TEXT,
    chain=TEXT,
    consumer_id=ID,
    kind=TEXT,
    sequence=_MAYBE_COUNT,
    subject=MAYBE,
    account=MAYBE,
    token=MAYBE,
    amount=_MAYBE_DIGITS,
    block_number=COUNT,
    block_hash=TEXT,
    tx_hash=TEXT,
    log_index=COUNT,
    at=AT,
)
_JOB: Final = data_of(
    job_id=ID,
    name=TEXT,
    from_block=COUNT,
    to_block=COUNT,
    covered_blocks=COUNT,
    events_written=COUNT,
    error=MAYBE,
)
_BOOKS: Final = data_of(
    relayer_id=TEXT,
    token=TEXT,
    block_number=COUNT,
    balance=_DIGITS,
    held=_DIGITS,
    owed=_DIGITS,
    ledger_held=_DIGITS,
    ledger_owed=_DIGITS,
    explained=_DIGITS,
    unexplained=_DIGITS,
    detail=TEXT,
)

CHAIN_KINDS: Final[tuple[EventKind, ...]] = (
    EventKind(
        "chain.source_registered",
        "A contract, or addresses of interest, are to be followed",
        data_of(
            relayer_id=TEXT,
            chain=TEXT,
            network=TEXT,
            addresses=_NAMES,
            start_block=COUNT,
            follow_from=COUNT,
            settles=YES,
        ),
    ),
    EventKind("chain.event_applied", "An event was seen on a chain; it may be reverted until it is final", _SEEN),
    EventKind("chain.event_reverted", "The block of an event that was applied was left", _SEEN),
    EventKind(
        "chain.finalized",
        "Events became final: they are not reverted any more",
        data_of(relayer_id=TEXT, block_number=COUNT, last_sequence=_MAYBE_COUNT),
    ),
    EventKind(
        "chain.reorganized",
        "A chain left blocks that were seen for others",
        data_of(
            relayer_id=TEXT,
            ancestor_number=COUNT,
            depth=COUNT,
            old_hash=TEXT,
            new_hash=TEXT,
            reverted=COUNT,
            providers=_NAMES,
        ),
    ),
    EventKind(
        "chain.relayer_halted",
        "A relayer stopped by itself, and an operator has to decide",
        data_of(relayer_id=TEXT, reason=TEXT),
    ),
    EventKind(
        "chain.provider_accused",
        "A provider of a chain was caught in an answer that cannot be true",
        data_of(chain=TEXT, provider=TEXT, reason=TEXT, relayer_id=MAYBE),
    ),
    EventKind(
        "chain.backfilled",
        "Blocks of the past are here now, with their events",
        data_of(
            relayer_id=TEXT,
            job_id=ID,
            from_block=COUNT,
            to_block=COUNT,
            events=COUNT,
            first_sequence=_MAYBE_COUNT,
            last_sequence=_MAYBE_COUNT,
        ),
    ),
    EventKind(
        "chain.event_disagreed",
        "A final event is not what the rules here would have done",
        data_of(relayer_id=TEXT, consumer_id=ID, kind=TEXT, subject=MAYBE, code=TEXT, reason=TEXT),
    ),
    EventKind("chain.books_reconciled", "A contract's books and the ledger were compared, and agree", _BOOKS),
    EventKind("chain.books_differ", "A contract's books and the ledger disagree, and nothing explains why", _BOOKS),
    EventKind("backfill.completed", "A backfill is done, and what it brought was verified", _JOB),
    EventKind("backfill.failed", "A backfill ended without having all of its blocks", _JOB),
    EventKind("backfill.cancelled", "A backfill was cancelled; what it had brought stays", _JOB),
)
