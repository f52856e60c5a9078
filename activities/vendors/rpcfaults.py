"""What nodes of chains mean by their errors.

There is no standard beyond a few codes, so their words are judged: those that vendors publish, and that others met
(``tests/chain/provider_errors.py`` has them, and where each is from).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from activities.chain.ports import ChainFault, FaultKind

_TEXT_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a node told it: HTTP's status, JSON-RPC's code and text, and to which method (``batch``: to all)."""

    status: int = 200
    code: int | None = None
    text: str = ""
    method: str = ""
    retry_after_seconds: float | None = None


#: Calls that ask for a range or for many things: only there does it help to ask for less.
_DIVISIBLE: Final = frozenset({"eth_getLogs", "batch"})
_LESS: Final = frozenset({FaultKind.TOO_WIDE, FaultKind.TOO_MUCH})

#: The first that fits is meant. What asks for less comes before what asks for patience: vendors use one code for both.
_WORDS: Final = tuple(
    (kind, re.compile("|".join(patterns)))
    for kind, *patterns in (
        (
            FaultKind.REFUSED,
            r"(?:safe|finalized|pending) block not found",
            r"\bmethod\b.{0,60}not (?:found|exist|avail)",
        ),
        (
            FaultKind.NO_STATE,
            r"missing trie node|no state avail|proof window|required data unavailable|\bprun|\barchiv",
            r"\bstate\b.{0,90}(?:unavailable|not available|not found|discarded)",
        ),
        (
            FaultKind.BEHIND,
            r"unknown ?block|unfinalized data|future block|block(?:outofrange| height is| height out of range)",
            r"\b(?:block|header)s?\b.{0,90}(?:not|cannot be) found|could not find (?:block|header)",
            r"(?:beyond|after|past|above|exceeds?|greater than).{0,24}(?:\bhead\b|latest|\btip\b|last accepted)",
        ),
        (
            FaultKind.TOO_MUCH,
            r"returned more than|max(?:imum)? results|too many (?:logs|results|events)|logs matched|response size",
            r"(?:response|result|result set|body|payload|batch)(?: is)? too (?:large|big)",
            r"\bbatch\b.{0,40}(?:limit|exceed)|\btime[d ]*out|deadline exceeded|took too long|max(?:imum)? limit of",
        ),
        (
            FaultKind.TOO_WIDE,
            r"\b(?:block|blocks|range|ranges)\b.{0,60}(?:too (?:large|wide|big|many|high)|exceed|limit|than|over)",
            r"(?:limited|up to|max|exceed|over|more than|at most|too many).{0,60}\b(?:block|blocks|range|ranges)\b",
            r"query must be smaller|^limit exceeded$",
        ),
        (
            FaultKind.RATE_LIMITED,
            r"rate.?limit|too many (?:requests|connections)|throttl|slow down|too much load|\bquota\b|free tier",
            r"request (?:rate|limit|count)|per (?:second|minute|day)|daily|monthly|capacity|limit (?:exceed|reach)",
        ),
        (
            FaultKind.REFUSED,
            r"not (?:supported|allowed|whitelisted|included)|unsupported|disabled|does not exist|is not available",
            r"use -txindex",
            r"unauthori[sz]ed|forbidden|authenticat|api.?key|access denied|project id|invalid (?:arg|param|request)",
        ),
    )
)
_CODES: Final = {
    -32005: FaultKind.RATE_LIMITED,  # EIP-1474: limit exceeded
    429: FaultKind.RATE_LIMITED,
    -32001: FaultKind.BEHIND,  # EIP-1474: resource not found
    -39001: FaultKind.BEHIND,  # execution-apis: unknown block
    4444: FaultKind.NO_STATE,  # execution-apis: pruned history unavailable
    -32600: FaultKind.REFUSED,
    -32601: FaultKind.REFUSED,
    -32602: FaultKind.REFUSED,
    -32004: FaultKind.REFUSED,
}
_STATUSES: Final = {
    402: FaultKind.RATE_LIMITED,
    429: FaultKind.RATE_LIMITED,
    413: FaultKind.TOO_MUCH,
    401: FaultKind.REFUSED,
    403: FaultKind.REFUSED,
    404: FaultKind.REFUSED,
    405: FaultKind.REFUSED,
}

_HEX_RANGE: Final = re.compile(r"\[\s*(0x[0-9a-f]+)\s*,\s*(0x[0-9a-f]+)\s*\]")
_DEC_RANGE: Final = re.compile(r"with the range (\d+) ?- ?(\d+)")
#: A number behind a word that says what it is, in front of which no other number stands; ``k`` is a thousand.
_LIMIT: Final = re.compile(
    r"(?=(?:limit|max|up to|at most|exceed|smaller than|greater than|over\b|\d >)"
    r"\D{0,60}?(?:\b0 ?- ?)?\b(?P<number>\d[\d,_]*)(?P<thousand>k\b)?(?!\w))"
)
_BACKOFF: Final = re.compile(r"(?:backoff_seconds|(?:try again|retry)(?: after| in)?)\D{0,4}(\d{1,5}(?:\.\d+)?)")
#: Addresses, and what is long enough for a key.
_SECRET: Final = re.compile(r"\w+://\S+|[A-Za-z0-9_\-]{24,}")


def judged(told: Told) -> ChainFault:
    """The fault that an error is. Its message has the node's own words, without what could be an address or a key."""
    text = told.text.strip().lower()
    kind = _kind(told, text)
    parts = [f"HTTP {told.status}"] if told.status != 200 else []
    if told.code is not None:
        parts.append(f"code {told.code}")
    words = _SECRET.sub("…", told.text).strip()[:_TEXT_MAX]
    message = ", ".join(parts) + (": " if parts and words else "") + words
    return ChainFault(
        kind,
        message or "an error without words",
        retry_after_seconds=_wait(told, text) if kind in (FaultKind.RATE_LIMITED, FaultKind.UNAVAILABLE) else None,
        limit_blocks=_limit_blocks(kind, text),
    )


def _kind(told: Told, text: str) -> FaultKind:
    for kind, words in _WORDS:
        if (kind not in _LESS or told.method in _DIVISIBLE) and words.search(text):
            return kind
    if told.status in _STATUSES:
        return _STATUSES[told.status]
    return _CODES.get(told.code or 0, FaultKind.UNAVAILABLE)


def _limit_blocks(kind: FaultKind, text: str) -> int | None:
    """How many blocks it would bear: a range that it suggests, or the smallest number that it calls a limit."""
    if kind not in _LESS:
        return None
    suggested = _HEX_RANGE.search(text) or _DEC_RANGE.search(text)
    if suggested is not None:
        first, last = (int(each, 0) for each in suggested.groups())
        return last - first + 1 if last >= first else None
    if kind is FaultKind.TOO_MUCH:
        return None
    found = [
        int(limit["number"].replace(",", "").replace("_", "")) * (1000 if limit["thousand"] else 1)
        for limit in _LIMIT.finditer(text)
    ]
    return min((number for number in found if number > 0), default=None)


def _wait(told: Told, text: str) -> float | None:
    asked = _BACKOFF.search(text)
    return told.retry_after_seconds if asked is None else float(asked[1])
