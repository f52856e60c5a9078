"""What an operator may stop or bound: freezes of an account, an asset or all of a tenant, and limits of accounts.

What a freeze and a limit do to a posting is the ledger's rule; here stands what may be set.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from domain.errors import Refusal
from domain.ids import USER_ID_RULE, is_user_id

CODES: Final = {
    "account_ref_invalid": f"an account is named by its user's id: {USER_ID_RULE}",
    "freeze_ref_required": "a freeze of an account or an asset names it in `ref`",
    "freeze_ref_unexpected": "a freeze of the whole tenant names nothing in `ref`",
    "already_frozen": "a freeze of the same account, asset or tenant stands already",
    "freeze_lifted": "the freeze was lifted before",
    "limits_contradictory": "an account cannot keep more available than it may have",
}

#: What a freeze answers to whoever would move money. Nothing about a request is wrong then: it may come again.
FROZEN: Final = frozenset({"account_frozen", "asset_frozen", "tenant_frozen"})


class FreezeScope(StrEnum):
    """What a freeze stops."""

    ACCOUNT = "account"
    ASSET = "asset"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Freeze:
    """A stop that an operator put. ``ref`` is the account's ref or the asset's symbol; it stands until lifted."""

    freeze_id: UUID
    scope: FreezeScope
    ref: str | None
    reason: str
    frozen_at: datetime
    lift_reason: str | None = None
    lifted_at: datetime | None = None

    @property
    def active(self) -> bool:
        """Whether it still stands."""
        return self.lifted_at is None


def check_subject(scope: FreezeScope, ref: str | None) -> None:
    """Refuses what a freeze cannot be put on. That an asset is known, is for its table to say."""
    if scope is FreezeScope.TENANT:
        if ref is not None:
            raise Refusal("freeze_ref_unexpected", "the tenant needs no ref", field="ref")
        return
    if ref is None:
        raise Refusal("freeze_ref_required", f"name the {scope}", field="ref")
    if scope is FreezeScope.ACCOUNT and not is_user_id(ref):
        raise Refusal("account_ref_invalid", "this cannot name a user's account", field="ref")


def check_free(standing: Freeze | None) -> None:
    """Refuses a second freeze of what is frozen."""
    if standing is not None:
        raise Refusal("already_frozen", f"freeze {standing.freeze_id} stands already")


def check_lift(freeze: Freeze) -> None:
    """Refuses to lift what was lifted."""
    if not freeze.active:
        raise Refusal("freeze_lifted", "the freeze was lifted before")


def check_limits(min_available_minor: int | None, max_balance_minor: int | None) -> None:
    """Refuses limits that no credit and no debit could both keep."""
    if min_available_minor is not None and max_balance_minor is not None and min_available_minor > max_balance_minor:
        raise Refusal("limits_contradictory", "this is more than max_balance", field="min_available")
