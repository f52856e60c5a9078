from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Refusal
from domain.money import MAX_MINOR, MAX_SCALE, format_minor, parse_minor, share_floor

minors = st.integers(0, MAX_MINOR)
scales = st.integers(0, MAX_SCALE)


@given(minors, scales)
def test_format_and_parse_are_inverse(minor: int, scale: int) -> None:
    text = format_minor(minor, scale)
    assert parse_minor(text, scale) == minor
    assert parse_minor(Decimal(text), scale) == minor
    assert format_minor(-minor, scale).lstrip("-") == text


@pytest.mark.parametrize(
    ("text", "scale", "minor"),
    [
        ("1.5", 6, 1_500_000),
        ("0", 18, 0),
        ("0.000001", 6, 1),
        ("1.50000000", 6, 1_500_000),
        ("42", 0, 42),
        ("42.000", 0, 42),
        (7, 2, 700),
        (Decimal("1E+2"), 2, 10_000),
        (Decimal("0.10"), 2, 10),
        (str(MAX_MINOR), 0, MAX_MINOR),
    ],
)
def test_parse(text: str | int | Decimal, scale: int, minor: int) -> None:
    assert parse_minor(text, scale) == minor


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(
            (text, "amount_invalid")
            for text in ["", "-1", "+1", "1.", ".5", "1e3", "1,5", "1_0", " 1", "1\n", "NaN", "٣"]
        ),
        *((value, "amount_invalid") for value in [True, -1, 2**300, Decimal("NaN"), Decimal(-1), Decimal("1E+999999")]),
        (Decimal("1E-999999"), "amount_invalid"),
        ("1." + "0" * 100, "amount_invalid"),
        ("0.0000001", "amount_too_fine"),
        (Decimal("0.0000001"), "amount_too_fine"),
        (str(MAX_MINOR), "amount_too_large"),
        (MAX_MINOR, "amount_too_large"),
    ],
)
def test_parse_refuses(text: str | int | Decimal, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_minor(text, 6, field="amount")
    assert (caught.value.code, caught.value.field) == (code, "amount")
    assert len(caught.value.message) < 200


@given(minors, minors, st.integers(0, 10_000))
def test_a_share_is_floored_and_never_more_than_the_whole(one: int, other: int, basis_points: int) -> None:
    share = share_floor(one, basis_points)
    assert share * 10_000 <= one * basis_points < (share + 1) * 10_000
    assert 0 <= share_floor(one + other, basis_points) - share <= other
