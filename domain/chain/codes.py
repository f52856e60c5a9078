"""Every code with which the rules of following a chain refuse. Codes are for ever; wording may improve."""

from __future__ import annotations

from typing import Final

CODES: Final = {
    "chain_unknown": "the configuration has no chain of this name",
    "address_invalid": "an address is one of its chain: 0x and 40 hexadecimal digits, or what its network writes",
    "addresses_invalid": "a contract is followed alone; on a UTXO chain 1 to 1000 addresses are, each once",
    "source_taken": "the contract or one of the addresses is followed already",
    "relayer_unknown": "no relayer has this id",
    "relayer_not_running": "the relayer is not in a state in which it does this",
    "block_range_invalid": "a range begins at a block that can hold events and does not end before it",
    "block_not_reached": "the block lies above what the relayer or the chain has reached",
    "rewind_below_finalized": "what is final is not fetched anew by a rewind; a backfill verifies it",
    "job_unknown": "no backfill job has this id",
    "job_over": "the job has ended: nothing moves it any more",
    "job_not_paused": "only a job that is paused is resumed",
    "job_not_failed": "only a job that failed or was cancelled is retried",
    "job_external": "the job runs elsewhere and reports its progress by itself",
    "job_not_external": "the job runs here and knows its progress by itself",
    "job_forked": "what the chain says does not continue what is stored as final; a job that meets it fails",
    "progress_invalid": "progress does not shrink and does not exceed the job's total",
}
