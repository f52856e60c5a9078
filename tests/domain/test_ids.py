from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.ids import escrow_workflow_id, is_user_id, transfer_workflow_id, uuid7

instants = st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1), timezones=st.just(UTC))
entropy = st.binary(min_size=10, max_size=10)


@given(instants, entropy)
def test_uuid7_has_the_shape_of_rfc_9562(at: datetime, random: bytes) -> None:
    made = uuid7(at, random)
    assert (made.version, made.variant) == (7, RFC_4122)
    milliseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert made.int >> 80 == milliseconds
    rest = int.from_bytes(random)
    assert made.int >> 64 & 0xFFF == rest >> 68 & 0xFFF
    assert made.int & (1 << 62) - 1 == rest & (1 << 62) - 1


@given(instants, entropy, entropy)
def test_uuid7_made_later_sorts_later(at: datetime, one: bytes, other: bytes) -> None:
    earlier, later = uuid7(at, one), uuid7(at + timedelta(milliseconds=1), other)
    assert earlier < later
    assert str(earlier) < str(later)


def test_uuid7_of_the_rfcs_example() -> None:
    at = datetime(2022, 2, 22, 14, 22, 22, tzinfo=timezone(timedelta(hours=-5)))
    entropy = (0xCC3 << 68 | 0x18C4DC0C0C07398F).to_bytes(10)
    assert uuid7(at, entropy) == UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")


def test_uuid7_refuses_what_would_not_be_one() -> None:
    with pytest.raises(ValueError, match="10 random bytes"):
        uuid7(datetime(2026, 1, 1, tzinfo=UTC), b"")
    with pytest.raises(ValueError, match="aware"):
        uuid7(datetime(2026, 1, 1), bytes(10))


def test_workflow_ids_read() -> None:
    assert escrow_workflow_id(UUID(int=1)) == "escrow:00000000-0000-0000-0000-000000000001"
    assert transfer_workflow_id(UUID(int=1)) == "transfer:00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize("text", ["a", "user:42", "Ünïcode 用户 👩‍🚀", "x" * 200, "systematic"])
def test_user_ids(text: str) -> None:
    assert is_user_id(text)


@pytest.mark.parametrize(
    "text", ["", " ", "\u00a0", "x" * 201, "a\nb", "a\x00", "a\x7f", "\ud800", "system:", "system:fees"]
)
def test_what_is_no_user_id(text: str) -> None:
    assert not is_user_id(text)
