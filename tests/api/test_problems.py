"""Every code that the code refuses with has a status on purpose."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from api import problems
from domain import chain, controls, transfers
from domain import ledger as ledger_rules
from domain.escrow.codes import OPENING, WHAT, WHEN, WHO

ROOT = Path(__file__).resolve().parents[2]

#: Codes about the input: 422, which is what a code becomes that stands in no table.
ABOUT_INPUT = {
    *OPENING,
    *WHAT,
    "account_ref_invalid",
    "asset_not_accepted",
    "confidence_invalid",
    "effective_from_in_past",
    "level_looser",
    "level_too_high",
    "levels_out_of_order",
    "parameters_missing",
    "position_too_large",
    "positions_required",
    "price_ambiguous",
    "price_invalid",
    "range_invalid",
    "range_too_long",
    "share_too_large",
    "shares_out_of_order",
    "webhook_url_refused",
    "window_too_short",
    "chain_unknown",
    "address_invalid",
    "addresses_invalid",
    "block_range_invalid",
    "event_type_unknown",
    "event_types_missing",
    "header_not_allowed",
    "range_empty",
    "asset_mismatch",
    "counterparty_same",
    "field_not_for_kind",
    "too_many_lines",
    "actor_required",
    "amount_ambiguous",
    "amount_invalid",
    "amount_too_fine",
    "amount_too_large",
    "asset_unknown",
    "body_invalid",
    "cursor_invalid",
    "effective_in_future",
    "effective_in_past",
    "fee_repeated",
    "amount_exceeds_transfer",
    "expiry_ambiguous",
    "expiry_needs_pending",
    "expiry_not_in_future",
    "contact_address_invalid",
    "contact_code_wrong",
    "locale_unknown",
    "policy_steps_invalid",
    "quiet_hours_incomplete",
    "receipt_unreadable",
    "time_zone_unknown",
    "expiry_too_late",
    "freeze_ref_required",
    "freeze_ref_unexpected",
    "limits_contradictory",
    "transfer_to_itself",
    "idempotency_key_reused",
    "parameter_repeated",
    "path_invalid",
    "required",
    "scopes_required",
    "unknown_parameter",
    "user_id_invalid",
}

#: A posting of ours that is malformed is a bug; no caller can bring these about.
NEVER_SEEN = {"posting_too_short", "posting_unbalanced", "leg_zero", "leg_repeated", "hold_mismatch", "nothing_due"}


def raised_codes() -> set[str]:
    """The first argument of every ``Refusal(…)`` in the source, where it is a literal."""
    codes = set()
    for room in ("domain", "db", "activities", "workflows", "api"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal" and node.args:
                    literal = node.args[0]
                    if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                        codes.add(literal.value)
    return codes


def test_every_code_has_its_status_on_purpose() -> None:
    listed = {code for codes in problems.STATUS.values() for code in codes}
    assert raised_codes() - listed - ABOUT_INPUT - NEVER_SEEN == set()
    assert not listed & ABOUT_INPUT


def test_no_code_has_two_statuses() -> None:
    listed = [code for codes in problems.STATUS.values() for code in codes]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("escrow_unknown", 404),
        ("not_a_party", 403),
        ("role_not_allowed", 403),
        ("scope_missing", 403),
        ("milestone_not_funded", 409),
        ("escrow_closed", 409),
        ("insufficient_funds", 409),
        ("reference_taken", 409),
        ("idempotency_key_in_flight", 409),
        ("idempotency_key_reused", 422),
        ("amount_too_fine", 422),
        ("body_too_large", 413),
        ("key_invalid", 401),
    ],
)
def test_statuses_that_clients_rely_on(code: str, status: int) -> None:
    assert problems.status_of(code) == status


def test_the_rules_codes_are_all_placed() -> None:
    listed = {code for codes in problems.STATUS.values() for code in codes}
    assert set(WHEN) <= listed
    assert set(WHO) <= listed
    assert set(ledger_rules.CODES) <= listed | ABOUT_INPUT | NEVER_SEEN
    assert set(transfers.CODES) | set(controls.CODES) | set(chain.CODES) <= listed | ABOUT_INPUT
