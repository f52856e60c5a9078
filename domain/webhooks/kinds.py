"""The types of events, what each says, and the JSON Schema of its data. Fields are only ever added."""

from __future__ import annotations

from typing import Final

from domain.webhooks.chainkinds import CHAIN_KINDS
from domain.webhooks.shapes import (
    AMOUNT,
    ANYTHING,
    AT,
    COUNT,
    ID,
    MAYBE,
    MAYBE_AMOUNT,
    MAYBE_ID,
    TEXT,
    YES,
    EventKind,
    data_of,
)

__all__ = ["KINDS", "TEST_TYPE", "EventKind"]

#: What an endpoint gets when its owner asks for a test.
TEST_TYPE: Final = "webhook.test"


_ESCROW: Final = data_of(
    {"milestone": COUNT, "amount": AMOUNT, "role": TEXT, "reason": TEXT},
    escrow_id=ID,
    reference=MAYBE,
    status=TEXT,
    version=COUNT,
    asset=TEXT,
    buyer=TEXT,
    seller=TEXT,
    transactions={"type": "object", "additionalProperties": TEXT},
)
_POSTED: Final = data_of(
    {"counterparty": TEXT, "chain_id": ID, "reverses_id": MAYBE_ID},
    transaction_id=ID,
    account=TEXT,
    asset=TEXT,
    amount=AMOUNT,
    reference=MAYBE,
)
_TRANSFER: Final = data_of(
    transfer_id=ID,
    from_=TEXT,
    to=TEXT,
    asset=TEXT,
    amount=AMOUNT,
    status=TEXT,
    posted=MAYBE_AMOUNT,
    reference=MAYBE,
    expires_at=AT,
    transaction_id=ID,
)
_COMMAND: Final = data_of(
    command_id=TEXT,
    kind=TEXT,
    status=TEXT,
    code=MAYBE,
    reason=MAYBE,
    account_ref=TEXT,
    counterparty_ref=MAYBE,
    asset_symbol=TEXT,
    amount=AMOUNT,
    escrow_id=MAYBE_ID,
    transaction_id=MAYBE_ID,
)
_MARGIN: Final = data_of(
    user_id=TEXT,
    severity={"enum": ["low", "medium", "high", "critical"]},
    status=TEXT,
    health_score=MAYBE_AMOUNT,
    previous_health_score=MAYBE_AMOUNT,
    threshold_breached=AMOUNT,
    message=TEXT,
    collateral_usd=AMOUNT,
    borrow_usd=AMOUNT,
    recommendations={"type": "array", "items": {"type": "object"}},
    snapshot_id=ID,
)
_FREEZE: Final = data_of(freeze_id=ID, scope=TEXT, ref=MAYBE, reason=TEXT)
_RECONCILED: Final = data_of(
    {"areas": {"type": "object"}, "share_explained": MAYBE},
    run_id=ID,
    full=YES,
    checked=COUNT,
    explained=COUNT,
    unexplained=COUNT,
)
_DIFFERENCE: Final = data_of(
    finding_id=ID,
    run_id=ID,
    code=TEXT,
    subject=TEXT,
    part=MAYBE,
    asset=MAYBE,
    expected=MAYBE,
    actual=MAYBE,
    detail=TEXT,
)
_PRICE: Final = data_of(
    {"sources": {"type": "array"}, "reason": MAYBE, "confirmed": YES, "as_of": AT},
    tick=COUNT,
    asset=TEXT,
    mid=MAYBE_AMOUNT,
    low=MAYBE_AMOUNT,
    high=MAYBE_AMOUNT,
    quality=TEXT,
)

_ALERT: Final = data_of(
    {
        "occurrences": COUNT,
        "margin_event_id": MAYBE_ID,
        "ended": MAYBE,
        "cause": ID,
        "by": TEXT,
        "via": TEXT,
        "delivery": COUNT,
        "channel": TEXT,
        "vendor": TEXT,
        "said": TEXT,
    },
    notification_id=ID,
    user_id=TEXT,
    alert_type=TEXT,
    severity=TEXT,
    status=TEXT,
)
_CONTACT: Final = data_of(contact_id=ID, user_id=TEXT, channel=TEXT)

_PARTIES: Final = ("buyer", "seller")
_ACCOUNTS: Final = ("account", "counterparty")

#: In the order in which the catalogue is listed; beginnings group them.
KINDS: Final[tuple[EventKind, ...]] = (
    EventKind("escrow.created", "An escrow was opened", _ESCROW, _PARTIES),
    EventKind("escrow.funded", "The buyer's money is held for a milestone", _ESCROW, _PARTIES),
    EventKind("escrow.approval_recorded", "A party said yes; others are still to", _ESCROW, _PARTIES),
    EventKind("escrow.approved", "A milestone may be paid", _ESCROW, _PARTIES),
    EventKind("escrow.released", "Money went to the seller", _ESCROW, _PARTIES),
    EventKind("escrow.refunded", "Money went back to the buyer", _ESCROW, _PARTIES),
    EventKind("escrow.disputed", "A party stopped a milestone", _ESCROW, _PARTIES),
    EventKind("escrow.resolved", "The arbiter has decided", _ESCROW, _PARTIES),
    EventKind("escrow.cancelled", "An escrow, or a milestone of it, ended before money was held", _ESCROW, _PARTIES),
    EventKind("escrow.expired", "A deadline passed, and what was held went back", _ESCROW, _PARTIES),
    EventKind("escrow.completed", "Every milestone has ended, and something was paid", _ESCROW, _PARTIES),
    EventKind("ledger.deposited", "Money came in", _POSTED, _ACCOUNTS),
    EventKind("ledger.withdrawn", "Money went out", _POSTED, _ACCOUNTS),
    EventKind("ledger.transferred", "Money went from account to account", _POSTED, _ACCOUNTS),
    EventKind("ledger.reversed", "A transaction was taken back by another", _POSTED, _ACCOUNTS),
    EventKind("ledger.reconciled", "The books were compared", _RECONCILED),
    EventKind("ledger.difference_found", "The books disagree, and nothing explains why", _DIFFERENCE),
    EventKind("transfer.pending", "Money was set apart for somebody", _TRANSFER, ("from", "to")),
    EventKind("transfer.posted", "What was set apart was paid, in whole or in part", _TRANSFER, ("from", "to")),
    EventKind("transfer.voided", "What was set apart went back", _TRANSFER, ("from", "to")),
    EventKind("transfer.expired", "Nobody resolved a pending transfer in time", _TRANSFER, ("from", "to")),
    EventKind(
        "commands.received",
        "Settlement commands were taken",
        data_of(count=COUNT, first_sequence=COUNT, last_sequence=COUNT),
    ),
    EventKind("command.settled", "A command was carried out", _COMMAND, ("account_ref", "counterparty_ref")),
    EventKind("command.rejected", "A rule said no to a command", _COMMAND, ("account_ref", "counterparty_ref")),
    EventKind("command.failed", "A command met a fault of ours", _COMMAND, ("account_ref", "counterparty_ref")),
    EventKind("margin_warning", "A health factor fell below its warning level", _MARGIN, ("user_id",)),
    EventKind("margin_call", "A health factor fell below its margin call level", _MARGIN, ("user_id",)),
    EventKind("liquidation_imminent", "An account is about to be liquidatable", _MARGIN, ("user_id",)),
    EventKind("liquidation_due", "An account is liquidatable", _MARGIN, ("user_id",)),
    EventKind("margin_recovered", "A health factor is above the level that was told of", _MARGIN, ("user_id",)),
    EventKind(
        "margin.settings_set",
        "The tenant decided anew about margin",
        data_of(escrow_collateral={"type": "object", "properties": {"before": TEXT, "after": TEXT}}),
    ),
    EventKind(
        "margin.audit_disagreed",
        "The auditor found that a user was told wrong",
        data_of(
            user_id=TEXT,
            told_level=TEXT,
            strict_level=TEXT,
            rearmed_level=TEXT,
            price_tick=COUNT,
            parameter_version=COUNT,
        ),
        ("user_id",),
    ),
    EventKind("alert.raised", "Somebody is to be told of something", _ALERT, ("user_id",)),
    EventKind("alert.grouped", "What an alert tells of happened again", _ALERT, ("user_id",)),
    EventKind("alert.recovered", "What an alert told of is over", _ALERT, ("user_id",)),
    EventKind("alert.superseded", "A worse alert took an alert's place", _ALERT, ("user_id",)),
    EventKind("alert.passed", "What an acknowledged alert told of is over", _ALERT, ("user_id",)),
    EventKind("alert.suppressed", "Its user does not want to hear of so little", _ALERT, ("user_id",)),
    EventKind("alert.escalated", "Nobody took note: the next step of the policy began", _ALERT, ("user_id",)),
    EventKind("alert.sent", "Every way that an alert took has it", _ALERT, ("user_id",)),
    EventKind("alert.partially_sent", "Some ways have an alert, and others failed", _ALERT, ("user_id",)),
    EventKind("alert.delivered", "An alert arrived", _ALERT, ("user_id",)),
    EventKind("alert.partially_delivered", "An alert arrived on some ways; others failed", _ALERT, ("user_id",)),
    EventKind("alert.unknown", "Whether an alert was sent is being found out", _ALERT, ("user_id",)),
    EventKind("alert.pending", "An alert is to be sent again", _ALERT, ("user_id",)),
    EventKind("alert.failed", "No way to the user worked", _ALERT, ("user_id",)),
    EventKind("alert.acknowledged", "Somebody took note: nothing more is sent", _ALERT, ("user_id",)),
    EventKind("alert.receipt", "A vendor said what became of a message", _ALERT, ("user_id",)),
    EventKind("contact.added", "A user has a new contact, which is to be verified", _CONTACT, ("user_id",)),
    EventKind("contact.code_sent", "A contact was sent another code", _CONTACT, ("user_id",)),
    EventKind("contact.verified", "A contact's code came back: it is used from now on", _CONTACT, ("user_id",)),
    EventKind("contact.removed", "A contact is used no more", _CONTACT, ("user_id",)),
    EventKind("preferences.set", "What a user wants to hear of, and when", data_of(user_id=TEXT), ("user_id",)),
    EventKind("policy.set", "How alerts of a type climb", data_of(alert_type=TEXT)),
    EventKind("policy.reset", "Alerts of a type climb as the house has it", data_of(alert_type=TEXT)),
    EventKind("freeze.placed", "An operator stopped an account, an asset or everything", _FREEZE, ("ref",)),
    EventKind("freeze.lifted", "What was stopped may move again", _FREEZE, ("ref",)),
    EventKind(
        "account.limits_set",
        "An operator set the limits of an account",
        data_of(
            {"before": {"type": "object"}},
            account=TEXT,
            asset=TEXT,
            min_available=MAYBE_AMOUNT,
            max_balance=MAYBE_AMOUNT,
            max_debit=MAYBE_AMOUNT,
        ),
        ("account",),
    ),
    EventKind("price.changed", "An asset has a new price", _PRICE, everybodys=True),
    EventKind(
        "prices.ticked",
        "Prices were refreshed",
        data_of(tick=COUNT, assets={"type": "array", "items": TEXT}),
        everybodys=True,
    ),
    EventKind(
        "webhook.disabled",
        "Nothing is sent to an endpoint any more",
        data_of(
            {"failing_since": {"type": ["string", "null"], "format": "date-time"}},
            subscription_id=ID,
            url=TEXT,
            reason={"enum": ["gone", "failing", "asked"]},
            owner=MAYBE,
        ),
        ("owner",),
    ),
    *CHAIN_KINDS,
    EventKind(TEST_TYPE, "Its owner asked for a test", data_of(message=TEXT, asked_for=ANYTHING)),
)
