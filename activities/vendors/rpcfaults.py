"""What nodes of chains mean by their errors.

There is no standard beyond a few codes, so their words are judged: those that vendors publish, and that others met
(``tests/chain/provider_errors.py`` names the sources).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from activities.chain.ports import ChainFault, FaultKind

_TEXT_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a node told it: HTTP's status, JSON-RPC's code and text, and to which method."""

    status: int = 200
    code: int | None = None
    text: str = ""
    method: str = ""
    retry_after_seconds: float | None = None


#: In this order: what asks for less is asked for under codes that elsewhere mean too many requests.
_WORDS: Final = tuple(
    (kind, re.compile("|".join(patterns)))
    for kind, patterns in (
        (
            FaultKind.NO_STATE,
            (
                r"missing trie node",
                r"state .*(?:not available|unavailable|not found|discarded|pruned)",
                r"(?:history|historical|old) .*(?:prun|not available|unavailable)",
                r"prun(?:ed|ing)",
                r"archive",
                r"proof window",
                r"required data unavailable",
                r"no state available",
            ),
        ),
        (
            FaultKind.BEHIND,
            (
                r"unknown ?block",
                r"(?:block|header)s?(?: \S+){0,4} (?:was )?(?:not|cannot be) found",
                r"block(?: \S+)? not (?:available|yet)",
                r"could not find block",
                r"header for hash not found",
                r"beyond (?:the )?(?:current )?(?:head|latest|tip)",
                r"blockoutofrange|block out of range|block height is \d+ but requested",
                r"after last accepted block",
                r"greater than (?:the )?(?:latest|current|head)",
                r"(?:fromblock|toblock|block)(?: \S+)? is (?:greater|higher|in the future)",
                r"future block",
                r"does not have the (?:requested )?block",
                r"block height out of range",
                r"invalid block range params",
            ),
        ),
        (
            FaultKind.TOO_WIDE,
            (
                r"(?:block|range|interval).{0,60}(?:too (?:large|wide|big|many|high)|exceed|limit|less than|maximum)",
                r"(?:limit|up to|max|exceed|over|more than|at most).{0,60}(?:block|range|interval)s?\b",
                r"too many blocks",
            ),
        ),
        (
            FaultKind.TOO_MUCH,
            (
                r"returned more than",
                r"(?:response|result|log|body|payload|query|data)\S* .{0,40}(?:too (?:large|big|many)|exceed|limit)",
                r"(?:too many|more than|max(?:imum)?|exceed\w*).{0,40}(?:results?|logs?|events?|response|size|topics)",
                r"query (?:timeout|timed out|execution)|timed? ?out.{0,40}(?:query|getlogs)",
                r"(?:query|request|getlogs).{0,60}tim(?:ed?|e) ?out",
            ),
        ),
        (
            FaultKind.RATE_LIMITED,
            (
                r"rate.?limit",
                r"too many (?:requests|connections)",
                r"request(?:s)? (?:rate|limit|count)",
                r"(?:compute units|throughput|capacity|credits?|quota|per second|daily|monthly|per minute)",
                r"limit (?:exceeded|reached)|exceeded .*limit",
                r"throttl",
                r"slow down|back ?off",
            ),
        ),
        (
            FaultKind.REFUSED,
            (
                r"(?:method|request).{0,60}not (?:found|supported|available|allowed|exist)",
                r"(?:method|request).{0,60}(?:unsupported|disabled|whitelist)",
                r"does not exist|is not available",
                r"unauthori[sz]ed|forbidden|authenticat|api.?key|access denied|project id|not allowed",
                r"invalid (?:argument|param|request)",
            ),
        ),
    )
)
_CODES: Final = {
    -32005: FaultKind.RATE_LIMITED,
    429: FaultKind.RATE_LIMITED,
    -32600: FaultKind.REFUSED,
    -32601: FaultKind.REFUSED,
    -32602: FaultKind.REFUSED,
    -32004: FaultKind.REFUSED,
    -32001: FaultKind.BEHIND,
    -39001: FaultKind.BEHIND,
}
_STATUSES: Final = {
    429: FaultKind.RATE_LIMITED,
    402: FaultKind.RATE_LIMITED,
    401: FaultKind.REFUSED,
    403: FaultKind.REFUSED,
    404: FaultKind.REFUSED,
    405: FaultKind.REFUSED,
    413: FaultKind.TOO_MUCH,
}
#: Only these ask for a range; elsewhere their words cannot mean one.
_RANGED: Final = frozenset({"eth_getLogs", "batch"})

_SUGGESTED: Final = re.compile(r"\[?\s*(0x[0-9a-f]+|\d+)\s*(?:,|-|to)\s*(0x[0-9a-f]+|\d+)\s*\]")
_NUMBER: Final = re.compile(r"(?<![\w.])(\d{1,3}(?:[,_]\d{3})+|\d+)(k)?(?![\w.]*[x\d])")
_SECRET: Final = re.compile(r"\b\w+://\S+|[A-Za-z0-9_\-]{24,}")


def judged(told: Told) -> ChainFault:
    """The fault that an error is. Its message has the node's own words, without what could be an address or a key."""
    text = told.text.lower()
    kind = _kind(told, text)
    limit = _limit_blocks(text) if kind in (FaultKind.TOO_WIDE, FaultKind.TOO_MUCH) else None
    parts = [f"HTTP {told.status}"] if told.status != 200 else []
    if told.code is not None:
        parts.append(f"code {told.code}")
    words = _SECRET.sub("…", told.text)[:_TEXT_MAX].strip()
    message = ", ".join(parts) + (": " if parts and words else "") + words
    return ChainFault(
        kind,
        message or "an error without words",
        retry_after_seconds=told.retry_after_seconds
        if kind in (FaultKind.RATE_LIMITED, FaultKind.UNAVAILABLE)
        else None,
        limit_blocks=limit,
    )


def _kind(told: Told, text: str) -> FaultKind:
    if told.status == 429:
        return FaultKind.RATE_LIMITED
    for kind, words in _WORDS:
        if kind in (FaultKind.TOO_WIDE, FaultKind.TOO_MUCH) and told.method not in _RANGED:
            continue
        if words.search(text):
            return kind
    if told.code in _CODES:
        return _CODES[told.code]
    return _STATUSES.get(told.status, FaultKind.UNAVAILABLE)


def _limit_blocks(text: str) -> int | None:
    """How many blocks the node would bear, where it says so: a range that it suggests, or the number of its limit."""
    suggested = _SUGGESTED.search(text)
    if suggested is not None:
        first, last = (int(each, 0) for each in suggested.groups())
        return last - first + 1 if last >= first else None
    return None
