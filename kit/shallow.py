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


#: Everything in a body but what opens and closes, quotes, and what may stand before a quote that is none.
_OTHERS = bytes(each for each in range(256) if each not in b'[]{}"\\')
#: So many levels are taken off a body at most; what is left after them is looked at closely.
_LEVELS = 16


def is_body_too_deep(body: bytes) -> bool:
    """As ``is_too_deep``, for bodies of many megabytes: a few passes of C over what opens and closes alone.

    Two quotes with no bracket between them go together; before a bracket within a text there is an odd number of them,
    so one stays. With none left, every bracket counts.
    """
    marks = body.translate(None, _OTHERS).replace(b'""', b"")
    if b'"' in marks or b"\\" in marks:
        return is_too_deep(body.decode(errors="replace"))
    for _ in range(_LEVELS):
        if len(marks) <= MAX_DEPTH:
            return False
        left = marks.replace(b"[]", b"").replace(b"{}", b"")
        if len(left) == len(marks):
            break
        marks = left
    return is_too_deep(body.decode(errors="replace"))
