"""JSON of strangers: bounded in depth. The interpreter's own limit is no guard, for libraries raise it (``web3`` does,
through ``py_ecc``), and then the decoder runs out of stack and takes the process with it."""

from __future__ import annotations

import json
import re
from typing import Any

#: Nobody whom we talk to nests a tenth as deep.
MAX_DEPTH = 100

#: What opens and closes, and texts, in which neither counts; one that does not end is one to the end, looked at once.
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def is_too_deep(text: str) -> bool:
    """Whether ``text`` is nested beyond ``MAX_DEPTH``."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for found in _STRUCTURE.finditer(text):
        mark = found[0]
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif mark in "]}":
            depth -= 1
    return False


def loads(raw: bytes | str, **how: Any) -> Any:
    """``json.loads`` of UTF-8; raises ``ValueError`` for what is nested too deeply, too."""
    text = raw if isinstance(raw, str) else raw.decode()
    if is_too_deep(text):
        raise ValueError("nested too deeply")
    return json.loads(text, **how)
