"""Whether a posting may stand. The one rule, for a single posting as for thousands in a batch."""

from __future__ import annotations

from collections.abc import Mapping

from domain.errors import Refusal
from domain.ledger.model import (
    LIMITED,
    MIRRORED,
    NO_CONTROLS,
    Balance,
    Controls,
    Freezes,
    Limits,
    Posting,
    Pot,
    may_owe,
)
from domain.money import MAX_MINOR

#: What a posting changes of each account: (available, held) by (account, asset).
Changes = dict[tuple[str, str], tuple[int, int]]


def check(posting: Posting) -> Changes:
    """What the posting changes; refuses one that could not stand in any ledger, whatever the balances are."""
    if len(posting.legs) < 2:
        raise Refusal("posting_too_short", "a posting has at least two legs")
    changes: Changes = {}
    sums: dict[str, int] = {}
    seen = set()
    for leg in posting.legs:
        amount_minor, held = leg.amount_minor, leg.pot is Pot.HELD
        if amount_minor == 0:
            raise Refusal("leg_zero", f"the leg of {leg.account} moves nothing")
        if abs(amount_minor) > MAX_MINOR:
            raise Refusal("amount_too_large", f"the leg of {leg.account} exceeds 2**256 - 1 minor units")
        if (leg.hold_id is not None) != held:
            raise Refusal("hold_mismatch", f"the leg of {leg.account} must name a hold exactly if it moves held money")
        seen.add((leg.account, leg.asset, held, leg.hold_id))
        sums[leg.asset] = sums.get(leg.asset, 0) + amount_minor
        available, on_hold = changes.get((leg.account, leg.asset), (0, 0))
        changes[leg.account, leg.asset] = (
            (available, on_hold + amount_minor) if held else (available + amount_minor, on_hold)
        )
    if len(seen) < len(posting.legs):
        raise Refusal("leg_repeated", "two legs move the same pot of an account")
    for asset, total in sums.items():
        if total != 0:
            raise Refusal("posting_unbalanced", f"the legs in {asset} sum to {total}, not to zero")
    return changes


def decide(
    balances: Mapping[tuple[str, str], Balance], posting: Posting, controls: Controls = NO_CONTROLS
) -> dict[tuple[str, str], Balance]:
    """The balances that the posting touches, as it leaves them; refuses what they or the operators' controls forbid.

    ``balances`` are by (account, asset); an account that is missing has nothing. All legs count together: within a
    posting money may be spent that arrives by it. Where money is missing that is what is told, also of amounts that
    would be too large elsewhere.
    """
    changes = check(posting)
    if posting.kind not in MIRRORED:
        check_frozen(controls.freezes, changes)
    limited = posting.kind in LIMITED
    after: dict[tuple[str, str], Balance] = {}
    for key, (available, held) in changes.items():
        before = balances.get(key) or Balance()
        balance = Balance(before.available_minor + available, before.held_minor + held)
        _check_funds(key, before, balance)
        if limited and (limits := controls.limits.get(key)) is not None:
            _check_limits(key, before, balance, limits)
        after[key] = balance
    for (account, _), balance in after.items():
        if abs(balance.available_minor) > MAX_MINOR or balance.held_minor > MAX_MINOR:
            raise Refusal("balance_too_large", f"the balance of {account} would exceed 2**256 - 1 minor units")
    return after


def check_frozen(freezes: Freezes, touched: Mapping[tuple[str, str], object]) -> None:
    """Refuses what would move money of a frozen tenant, of frozen accounts or of frozen assets."""
    if freezes.tenant:
        raise Refusal("tenant_frozen", "the tenant is frozen")
    for account, asset in touched:
        if account in freezes.accounts:
            raise Refusal("account_frozen", f"the account {account} is frozen")
        if asset in freezes.assets:
            raise Refusal("asset_frozen", f"the asset {asset} is frozen")


def _check_funds(key: tuple[str, str], before: Balance, after: Balance) -> None:
    account, asset = key
    if after.held_minor < 0:
        taken = before.held_minor - after.held_minor
        raise Refusal("hold_exhausted", f"{account} has {before.held_minor} on hold in {asset}, not {taken}")
    if after.available_minor < 0 and not may_owe(account):
        taken = before.available_minor - after.available_minor
        raise Refusal("insufficient_funds", f"{account} has {before.available_minor} available in {asset}, not {taken}")


def _check_limits(key: tuple[str, str], before: Balance, after: Balance, limits: Limits) -> None:
    account, asset = key
    taken = before.available_minor - after.available_minor
    if taken > 0:
        if limits.max_debit_minor is not None and taken > limits.max_debit_minor:
            raise Refusal("limit_max_debit", f"a debit of {account} in {asset} takes {limits.max_debit_minor} at most")
        if limits.min_available_minor is not None and after.available_minor < limits.min_available_minor:
            raise Refusal("limit_min_available", f"{account} keeps {limits.min_available_minor} available in {asset}")
    total_minor = after.available_minor + after.held_minor
    gained = total_minor - before.available_minor - before.held_minor
    if gained > 0 and limits.max_balance_minor is not None and total_minor > limits.max_balance_minor:
        raise Refusal("limit_max_balance", f"{account} has {limits.max_balance_minor} at most in {asset}")
