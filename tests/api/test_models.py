"""From the wire to terms: exact amounts, named fields, nothing unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from api.bodies import parse
from api.escrow.models import FeeInput, NewEscrow, PaymentInput, ResolutionInput
from api.escrow.terms import terms_message, terms_of, translated
from api.fields import Instant
from domain.errors import Refusal
from domain.escrow import Role, Terms, open_escrow
from domain.money import Asset

USDC = Asset("USDC", 6)
ETH = Asset("ETH", 18)
ESCROW_ID = UUID("019a0000-0000-7000-8000-000000000001")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def body(**changes: Any) -> NewEscrow:
    fields = {"asset": "USDC", "buyer": {"user_id": "alice"}, "seller": {"user_id": "bob"}, "amount": "10"}
    return NewEscrow.model_validate({name: value for name, value in (fields | changes).items() if value is not None})


def terms(asset: Asset = USDC, **changes: Any) -> Terms:
    return terms_of(body(**changes), asset, ESCROW_ID)


def fields_at_fault(error: ValidationError) -> set[str]:
    return {".".join(str(part) for part in fault["loc"]) for fault in error.errors()}


@pytest.mark.parametrize(
    ("text", "scale", "minor"),
    [
        ("0.1", 6, 100_000),
        ("10.0", 6, 10_000_000),
        ("10.000000000000", 6, 10_000_000),
        ('"10.5"', 6, 10_500_000),
        ("1e-18", 18, 1),
        ("1E2", 6, 100_000_000),
        ("123456789012345678901234567890.123456789012345678", 18, 123456789012345678901234567890123456789012345678),
        ("115792089237316195423570985008687907853269984665640564039457.584007913129639935", 18, 2**256 - 1),
    ],
)
def test_amounts_are_exact_to_the_last_digit(text: str, scale: int, minor: int) -> None:
    amount = parse(text.encode())
    assert terms(Asset("X", scale), amount=amount).milestones[0].amount_minor == minor


@pytest.mark.parametrize(
    ("amount", "code"),
    [
        ("0.0000001", "amount_too_fine"),
        (parse(b"1e-7"), "amount_too_fine"),
        ("1" * 78, "amount_too_large"),
    ],
)
def test_what_the_asset_cannot_hold_is_refused_not_rounded(amount: object, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        terms(amount=amount)
    assert (caught.value.code, caught.value.field) == (code, "amount")


@pytest.mark.parametrize(
    "amount", ["", "-1", "+1", "1,5", " 1", "1 ", "1e5", "0x10", "NaN", "١", True, -1, [], {}, 0.5, parse(b"-0.5")]
)
def test_what_is_no_amount_is_refused_by_its_name(amount: object) -> None:
    with pytest.raises(ValidationError) as caught:
        body(amount=amount)
    assert fields_at_fault(caught.value) == {"amount"}


def test_an_amount_makes_one_milestone_and_milestones_make_several() -> None:
    assert [milestone.amount_minor for milestone in terms().milestones] == [10_000_000]
    several = terms(amount=None, milestones=[{"title": "a", "amount": "1"}, {"title": "b", "amount": "2.5"}])
    assert [(milestone.title, milestone.amount_minor) for milestone in several.milestones] == [
        ("a", 1_000_000),
        ("b", 2_500_000),
    ]


def test_the_fault_in_a_milestone_is_named_with_its_place() -> None:
    with pytest.raises(Refusal) as caught:
        terms(amount=None, milestones=[{"title": "a", "amount": "1"}, {"title": "b", "amount": "0.00000001"}])
    assert caught.value.field == "milestones.1.amount"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"amount": None}, "required"),
        ({"milestones": [{"title": "a", "amount": "1"}]}, "amount_ambiguous"),
    ],
)
def test_either_amount_or_milestones(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Refusal) as caught:
        terms(**changes)
    assert (caught.value.code, caught.value.field) == (code, "amount")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"buyer": {"user_id": "alice", "age": 7}}, "buyer.age"),
        ({"buyer": {}}, "buyer.user_id"),
        ({"buyer": {"user_id": ""}}, "buyer.user_id"),
        ({"buyer": {"user_id": "x" * 201}}, "buyer.user_id"),
        ({"buyer": {"user_id": "nul\x00"}}, "buyer.user_id"),
        ({"buyer": {"user_id": "\ud800"}}, "buyer.user_id"),
        ({"buyer": {"user_id": 7}}, "buyer.user_id"),
        ({"reference": "r" * 201}, "reference"),
        ({"description": "d\x00"}, "description"),
        ({"asset": "US DC"}, "asset"),
        ({"amount": None, "milestones": []}, "milestones"),
        ({"approval_policy": {"roles": ["system"], "required": 1}}, "approval_policy.roles.0"),
        ({"approval_policy": {"roles": ["buyer"], "required": "1"}}, "approval_policy.required"),
        ({"fees": [{"basis_points": 10_001, "paid_by": "buyer"}]}, "fees.0.basis_points"),
        ({"fees": [{"basis_points": 1, "paid_by": "arbiter"}]}, "fees.0.paid_by"),
        ({"inspection_period_seconds": 0}, "inspection_period_seconds"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "2030-01-01"}, "expires_at"),
        ({"expires_at": 1_900_000_000}, "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
    ],
)
def test_invalid_input_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        body(**changes)
    assert fields_at_fault(caught.value) == {field}


def test_one_is_an_integer_however_it_is_written() -> None:
    for one in (1, parse(b"1.0"), parse(b"10e-1")):
        assert FeeInput.model_validate({"basis_points": one, "paid_by": "buyer"}).basis_points == 1
    for other in (parse(b"1.5"), "1", True, parse(b"1e999")):
        with pytest.raises(ValidationError):
            FeeInput.model_validate({"basis_points": other, "paid_by": "buyer"})


def test_instants_are_kept_in_utc() -> None:
    adapter = TypeAdapter(Instant)
    assert adapter.validate_python("2026-01-31T12:00:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert adapter.validate_python("2026-01-31T12:00:00+02:00").tzinfo is UTC


def test_fees_stand_by_their_payer() -> None:
    agreed = terms(fees=[{"basis_points": 50, "paid_by": "seller"}, {"basis_points": 25, "paid_by": "buyer"}])
    assert (agreed.buyer_fee_basis_points, agreed.seller_fee_basis_points) == (25, 50)
    with pytest.raises(Refusal) as caught:
        terms(fees=[{"basis_points": 50, "paid_by": "seller"}, {"basis_points": 1, "paid_by": "seller"}])
    assert (caught.value.code, caught.value.field) == ("fee_repeated", "fees.1.paid_by")


def test_a_repeated_request_describes_the_same_terms() -> None:
    assert terms() == terms()
    assert terms_message(terms()).content_hash() == terms_message(terms(amount="10.000")).content_hash()
    assert terms_message(terms()).content_hash() != terms_message(terms(amount="10.000001")).content_hash()


def test_the_message_carries_everything() -> None:
    said = body(
        asset="ETH",
        arbiter={"user_id": "judy", "address": "0x1"},
        approval_policy={"roles": ["buyer", "arbiter"], "required": 2},
        fees=[{"basis_points": 25, "paid_by": "buyer"}],
        funding_deadline="2026-02-01T00:00:00Z",
        inspection_period_seconds=86_400,
        expires_at="2026-03-01T00:00:00Z",
        reference="order-7",
        description="two\nlines",
    )
    agreed = terms_of(said, ETH, ESCROW_ID)
    ids = tuple(milestone.milestone_id for milestone in agreed.milestones)
    assert terms_message(agreed).to_terms(ETH, ids) == agreed
    assert agreed.policy.roles == (Role.BUYER, Role.ARBITER)


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"amount": "0"}, "amount_invalid", "amount"),
        ({"seller": {"user_id": "alice"}}, "parties_not_distinct", "seller.user_id"),
        ({"expires_at": "2025-01-01T00:00:00Z"}, "deadline_not_in_future", "expires_at"),
        ({"approval_policy": {"roles": ["arbiter"], "required": 1}}, "policy_roles_invalid", "approval_policy.roles"),
        ({"buyer": {"user_id": "system:fees"}}, "user_id_invalid", "buyer.user_id"),
    ],
)
def test_what_the_rules_refuse_is_named_as_the_request_names_it(changes: dict[str, Any], code: str, field: str) -> None:
    said = body(**changes)
    with pytest.raises(Refusal) as caught:
        open_escrow(ESCROW_ID, terms_of(said, USDC, ESCROW_ID), NOW)
    told = translated(caught.value, said)
    assert (told.code, told.field) == (code, field)


@pytest.mark.parametrize(
    ("said", "field", "told"),
    [
        (PaymentInput(milestones=[9]), "positions.0", "milestones.0"),
        (PaymentInput(), "positions", "milestones"),
        (PaymentInput(amount="7"), "amount", "amount"),
        (ResolutionInput(milestone=9, to_seller="1", to_buyer="0"), "positions.0", "milestone"),
        (ResolutionInput(to_seller="1", to_buyer="0"), "to_seller", "to_seller"),
        (PaymentInput(), None, None),
    ],
)
def test_fields_of_commands_have_the_names_of_the_request(
    said: PaymentInput | ResolutionInput, field: str | None, told: str | None
) -> None:
    assert translated(Refusal("code", "message", field=field), said).field == told
