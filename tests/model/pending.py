"""The reference model's transfers in two phases: money is set apart first, and given, returned or too late after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tests.model.reference import ASSETS, LARGEST, refuse_if

LONGEST = timedelta(days=366)


@dataclass(frozen=True)
class Pending:
    """One of them. Without an expiry it waits for the longest."""

    key: str
    source: str
    target: str
    asset: str
    amount: int
    expires: datetime | None = None
    created_at: datetime | None = None
    state: str = "PENDING"
    posted: int = 0
    resolved_at: datetime | None = None
    reference: str | None = None

    @property
    def held(self) -> int:
        return self.amount if self.state == "PENDING" else 0

    @property
    def expires_at(self) -> datetime:
        assert self.created_at is not None
        return self.expires or self.created_at + LONGEST

    def check(self, at: datetime) -> None:
        """Whether it may begin."""
        refuse_if(self.asset not in ASSETS, "asset_unknown")
        refuse_if(self.source.startswith("system:") or self.target.startswith("system:"), "account_ref_invalid")
        refuse_if(self.source == self.target, "transfer_to_itself")
        refuse_if(self.amount <= 0, "amount_invalid")
        refuse_if(self.amount > LARGEST, "amount_too_large")
        refuse_if(self.expires_at <= at, "expiry_not_in_future")
        refuse_if(self.expires_at > at + LONGEST, "expiry_too_late")

    def resolved(self, verb: str, amount: int | None, at: datetime) -> Pending:
        """How it stands once it ended so: once, and from its expiry on only by that."""
        refuse_if(self.state != "PENDING", f"transfer_{self.state.lower()}")
        over = at >= self.expires_at
        refuse_if(verb == "expire" and not over, "transfer_not_due")
        refuse_if(verb != "expire" and over, "transfer_expired")
        posted = 0
        if verb == "post":
            posted = self.amount if amount is None else amount
            refuse_if(posted <= 0, "amount_invalid")
            refuse_if(posted > self.amount, "amount_exceeds_transfer")
        state = {"post": "POSTED", "void": "VOIDED", "expire": "EXPIRED"}[verb]
        return replace(self, state=state, posted=posted, resolved_at=at)
