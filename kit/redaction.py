"""What others say, fit to be stored and shown: one bounded line without keys, addresses or telephone numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable

TEXT_CHARS_MAX = 300

_ADDRESSES = (
    (re.compile(r"\bhttps?://[^\s\"'<>]+", re.IGNORECASE), "(address)"),
    (re.compile(r"<?[^\s<>()\[\]\"',;:]+@[^\s<>()\[\]\"',;:]+>?"), "(address)"),
    (re.compile(r"(?<![\w.])\+\d[\d ()-]{5,}\d"), "(number)"),
)


def in_words(text: str, secrets: Iterable[str] = (), *, limit: int = TEXT_CHARS_MAX) -> str:
    """A text of somebody else's without URLs, mail addresses, telephone numbers and ``secrets``, in one line."""
    # What is cut off later may be long; what a secret is must be found before anything else touches it.
    text = text[: 20 * limit]
    for secret in secrets:
        if secret:
            text = text.replace(secret, "(key)")
    for pattern, instead in _ADDRESSES:
        text = pattern.sub(instead, text)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
