"""Bodies are strict JSON with exact numbers."""

from __future__ import annotations

import sys
from decimal import Decimal

import pytest

from api.bodies import canonical, parse
from domain.errors import Refusal
from kit.shallow import MAX_DEPTH


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", Decimal("0.1")),
        ("10.0", Decimal("10.0")),
        ("1e-18", Decimal("0.000000000000000001")),
        ("123456789012345678901234567890.123456789", Decimal("123456789012345678901234567890.123456789")),
        ("115792089237316195423570985008687907853269984665640564039457584007913129639935", 2**256 - 1),
        ('"0.1"', "0.1"),
        ("true", True),
        ("null", None),
    ],
)
def test_numbers_keep_every_digit(text: str, value: object) -> None:
    parsed = parse(text.encode())
    assert parsed == value
    assert type(parsed) is type(value)


def test_no_number_is_ever_a_float() -> None:
    parsed = parse(b'{"a": [0.1, 1e5, 1E-3, -0.0, 7], "b": {"c": 3.14}}')
    numbers = [*parsed["a"], parsed["b"]["c"]]
    assert {type(number) for number in numbers} == {Decimal, int}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"outer": {"a": 1, "b": 2, "a": 1}}',
        b"\xff\xfe",
        b'{"a": "\xc3\x28"}',
        b'{"a": "\x00"}',
        b"1" * 5000,
        b"0." + b"1" * 5000,
        b"1e99999999999999999999",
        b"[" * (sys.getrecursionlimit() * 50),
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
        b'"' + b'\\"[' * 300_000,
        b'\xef\xbb\xbf{"a": 1}',
    ],
)
def test_what_is_not_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        parse(body)
    assert caught.value.code == "body_invalid"
    assert caught.value.field == "body"


def test_a_body_of_repeated_keys_is_refused_in_linear_time() -> None:
    many = b"{" + b",".join(b'"k%d": 1' % number for number in range(60_000)) + b', "k59999": 1}'
    with pytest.raises(Refusal, match="k59999"):
        parse(many)


def test_spacing_and_order_do_not_make_another_request() -> None:
    said = parse(b'{"amount": 1.50, "buyer": {"user_id": "a", "address": null}}')
    again = parse(b'{ "buyer":{"address":null,"user_id":"a"},\n"amount":1.50 }')
    assert canonical(said) == canonical(again)


def test_other_digits_make_another_request() -> None:
    assert canonical(parse(b'{"amount": 1.5}')) != canonical(parse(b'{"amount": 1.51}'))
    assert canonical(parse(b'{"a": "1"}')) != canonical(parse(b'{"a": "2"}'))


def test_depth_is_bounded_whatever_the_interpreter_would_bear() -> None:
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    wide = b"[" + b'{"a": [1]},' * 1_000 + b'"' + b"[{" * 1_000 + b'\\"]"]'
    assert parse(deepest) is not None
    assert len(parse(wide)) == 1_001
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(Refusal, match="nested too deeply"):
            parse(b"[" * 1_000_000)
    finally:
        sys.setrecursionlimit(before)
