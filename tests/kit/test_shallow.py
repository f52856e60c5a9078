"""JSON of strangers: what is nested too deeply never reaches the decoder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.shallow import MAX_DEPTH, is_body_too_deep, is_too_deep, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('[]{}"\\ab', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}"\\', max_size=3), inner, max_size=3),
    max_leaves=200,
)


@pytest.fixture
def unbounded() -> Iterator[None]:
    """As libraries leave the interpreter: what the decoder then runs into is no error, but the end."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("text", ["[" * 1_000_000, '{"a":' * 1_000_000, '["' + "[" * 200 + '",' + "[" * 1_000_000])
def test_what_is_too_deep_is_not_read(unbounded: None, text: str) -> None:
    assert is_too_deep(text)
    assert is_body_too_deep(text.encode())
    with pytest.raises(ValueError, match="nested too deeply"):
        loads(text.encode())


@given(VALUES)
def test_what_is_shallow_is_read_as_ever(value: Any) -> None:
    text = json.dumps(value)
    assert loads(text) == loads(text.encode()) == value


@given(VALUES, st.integers(0, 300))
def test_depth_is_what_counts_and_not_size(value: Any, depth: int) -> None:
    text = json.dumps([value] * 300)
    inside = 1 + _depth(value)
    nested = "[" * depth + text + "]" * depth
    assert is_too_deep(nested) is is_body_too_deep(nested.encode()) is (depth + inside > MAX_DEPTH)


@pytest.mark.parametrize("decoy", ['"]",', '"",', '"]","[",', r'"\"]",', r'"\\",', '"a",', ""])
def test_no_text_hides_a_depth(decoy: str) -> None:
    """Whether the body ends or not."""
    for depth, deep in ((MAX_DEPTH, False), (MAX_DEPTH + 1, True), (5_000, True)):
        assert is_body_too_deep((f"[{decoy}" * depth).encode()) is deep
        assert is_body_too_deep((f"[{decoy}" * depth + "]" * depth).encode()) is deep


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        loads(b"\xff")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0
