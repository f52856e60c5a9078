"""Cursors are opaque, and good for one list under one set of filters."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.pages import Pager
from db.ids import new_id
from domain.errors import Refusal


@dataclass
class Row:
    number: int


def test_a_page_that_is_not_the_last_has_a_token_for_the_next() -> None:
    pager = Pager("rows", {"status": None})
    rows, token = pager.page([Row(1), Row(2), Row(3)], 2, "number")
    assert [row.number for row in rows] == [1, 2]
    assert pager.after(token) == 2


def test_the_last_page_has_none() -> None:
    assert Pager("rows", {}).page([Row(1), Row(2)], 2, "number") == ([Row(1), Row(2)], None)
    assert Pager("rows", {}).page([], 2, "number") == ([], None)


def test_ids_and_numbers_come_back() -> None:
    pager = Pager("rows", {})
    position = new_id()
    assert pager.before(pager.token(position)) == position
    assert pager.after(pager.token(12)) == 12
    assert pager.before(None) is None
    assert pager.after(None) == 0


@pytest.mark.parametrize("other", [Pager("rows", {"status": "created"}), Pager("columns", {"status": "funded"})])
def test_a_token_of_another_list_or_other_filters_is_refused(other: Pager) -> None:
    token = other.token(new_id())
    with pytest.raises(Refusal) as caught:
        Pager("rows", {"status": "funded"}).before(token)
    assert (caught.value.code, caught.value.field) == ("cursor_invalid", "cursor")


@pytest.mark.parametrize("position", ["", "x", "-1", "1" * 30, "٣", "\x00"])
def test_a_position_that_we_never_handed_out_is_refused(position: str) -> None:
    pager = Pager("rows", {})
    for read in (pager.before, pager.after):
        with pytest.raises(Refusal, match="cursor_invalid"):
            read(pager.token(position))


@given(st.text(max_size=100))
def test_noise_is_refused(token: str) -> None:
    with pytest.raises(Refusal, match="cursor_invalid"):
        Pager("rows", {}).before(token)


@given(st.uuids(), st.integers(0, 43))
def test_an_altered_token_is_refused(position: UUID, at: int) -> None:
    pager = Pager("rows", {})
    token = pager.token(position)
    altered = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
    with pytest.raises(Refusal, match="cursor_invalid"):
        pager.before(altered)
