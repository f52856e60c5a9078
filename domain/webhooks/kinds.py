"""The types of events, what each says, and the JSON Schema of its data. Fields are only ever added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: What an endpoint gets when its owner asks for a test.
TEST_TYPE: Final = "webhook.test"


@dataclass(frozen=True, slots=True)
class EventKind:
    """A type of event. ``users`` are the fields of its data that name users; ``everybodys``: it happens to no tenant in
    particular."""

    type: str
    description: str
    schema: Mapping[str, Any]
    users: tuple[str, ...] = ()
    everybodys: bool = False


_TEXT: Final = {"type": "string"}
_MAYBE: Final = {"type": ["string", "null"]}
_COUNT: Final = {"type": "integer"}
_YES: Final = {"type": "boolean"}
_ID: Final = {"type": "string", "format": "uuid"}
_MAYBE_ID: Final = {"type": ["string", "null"], "format": "uuid"}
_AT: Final = {"type": "string", "format": "date-time"}
_AMOUNT: Final = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
_MAYBE_AMOUNT: Final = {"type": ["string", "null"], "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
_ANYTHING: Final[Mapping[str, Any]] = {}


def _data(optional: Mapping[str, Any] | None = None, /, **required: Mapping[str, Any]) -> dict[str, Any]:
    names = [name.rstrip("_") for name in required]
    properties = dict(zip(names, required.values(), strict=True)) | dict(optional or {})
    return {"type": "object", "required": names, "properties": properties, "additionalProperties": True}


_ESCROW: Final = _data(
    {"milestone": _COUNT, "amount": _AMOUNT, "role": _TEXT, "reason": _TEXT},
    escrow_id=_ID,
    reference=_MAYBE,
    status=_TEXT,
    version=_COUNT,
    asset=_TEXT,
    buyer=_TEXT,
    seller=_TEXT,
    transactions={"type": "object", "additionalProperties": _TEXT},
)
_POSTED: Final = _data(
    {"counterparty": _TEXT, "chain_id": _ID, "reverses_id": _MAYBE_ID},
    transaction_id=_ID,
    account=_TEXT,
    asset=_TEXT,
    amount=_AMOUNT,
    reference=_MAYBE,
)
_TRANSFER: Final = _data(
    transfer_id=_ID,
    from_=_TEXT,
    to=_TEXT,
    asset=_TEXT,
    amount=_AMOUNT,
    status=_TEXT,
    posted=_MAYBE_AMOUNT,
    reference=_MAYBE,
    expires_at=_AT,
    transaction_id=_ID,
)
_COMMAND: Final = _data(
    command_id=_TEXT,
    kind=_TEXT,
    status=_TEXT,
    code=_MAYBE,
    reason=_MAYBE,
    account_ref=_TEXT,
    counterparty_ref=_MAYBE,
    asset_symbol=_TEXT,
    amount=_AMOUNT,
    escrow_id=_MAYBE_ID,
    transaction_id=_MAYBE_ID,
)
_MARGIN: Final = _data(
    user_id=_TEXT,
    severity={"enum": ["low", "medium", "high", "critical"]},
    status=_TEXT,
    health_score=_MAYBE_AMOUNT,
    previous_health_score=_MAYBE_AMOUNT,
    threshold_breached=_AMOUNT,
    message=_TEXT,
    collateral_usd=_AMOUNT,
    borrow_usd=_AMOUNT,
    recommendations={"type": "array", "items": {"type": "object"}},
    snapshot_id=_ID,
)
_FREEZE: Final = _data(freeze_id=_ID, scope=_TEXT, ref=_MAYBE, reason=_TEXT)
_RECONCILED: Final = _data(
    {"areas": {"type": "object"}, "share_explained": _MAYBE},
    run_id=_ID,
    full=_YES,
    checked=_COUNT,
    explained=_COUNT,
    unexplained=_COUNT,
)
_DIFFERENCE: Final = _data(
    finding_id=_ID,
    run_id=_ID,
    code=_TEXT,
    subject=_TEXT,
    part=_MAYBE,
    asset=_MAYBE,
    expected=_MAYBE,
    actual=_MAYBE,
    detail=_TEXT,
)
_PRICE: Final = _data(
    {"sources": {"type": "array"}, "reason": _MAYBE, "confirmed": _YES, "as_of": _AT},
    tick=_COUNT,
    asset=_TEXT,
    mid=_MAYBE_AMOUNT,
    low=_MAYBE_AMOUNT,
    high=_MAYBE_AMOUNT,
    quality=_TEXT,
)

_ALERT: Final = _data(
    {
        "occurrences": _COUNT,
        "margin_event_id": _MAYBE_ID,
        "ended": _MAYBE,
        "cause": _ID,
        "by": _TEXT,
        "via": _TEXT,
        "delivery": _COUNT,
        "channel": _TEXT,
        "vendor": _TEXT,
        "said": _TEXT,
    },
    notification_id=_ID,
    user_id=_TEXT,
    alert_type=_TEXT,
    severity=_TEXT,
    status=_TEXT,
)
_CONTACT: Final = _data(contact_id=_ID, user_id=_TEXT, channel=_TEXT)

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
        _data(count=_COUNT, first_sequence=_COUNT, last_sequence=_COUNT),
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
        _data(escrow_collateral={"type": "object", "properties": {"before": _TEXT, "after": _TEXT}}),
    ),
    EventKind(
        "margin.audit_disagreed",
        "The auditor found that a user was told wrong",
        _data(
            user_id=_TEXT,
            told_level=_TEXT,
            strict_level=_TEXT,
            rearmed_level=_TEXT,
            price_tick=_COUNT,
            parameter_version=_COUNT,
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
    EventKind("preferences.set", "What a user wants to hear of, and when", _data(user_id=_TEXT), ("user_id",)),
    EventKind("policy.set", "How alerts of a type climb", _data(alert_type=_TEXT)),
    EventKind("policy.reset", "Alerts of a type climb as the house has it", _data(alert_type=_TEXT)),
    EventKind("freeze.placed", "An operator stopped an account, an asset or everything", _FREEZE, ("ref",)),
    EventKind("freeze.lifted", "What was stopped may move again", _FREEZE, ("ref",)),
    EventKind(
        "account.limits_set",
        "An operator set the limits of an account",
        _data(
            {"before": {"type": "object"}},
            account=_TEXT,
            asset=_TEXT,
            min_available=_MAYBE_AMOUNT,
            max_balance=_MAYBE_AMOUNT,
            max_debit=_MAYBE_AMOUNT,
        ),
        ("account",),
    ),
    EventKind("price.changed", "An asset has a new price", _PRICE, everybodys=True),
    EventKind(
        "prices.ticked",
        "Prices were refreshed",
        _data(tick=_COUNT, assets={"type": "array", "items": _TEXT}),
        everybodys=True,
    ),
    EventKind(
        "webhook.disabled",
        "Nothing is sent to an endpoint any more",
        _data(
            {"failing_since": {"type": ["string", "null"], "format": "date-time"}},
            subscription_id=_ID,
            url=_TEXT,
            reason={"enum": ["gone", "failing", "asked"]},
            owner=_MAYBE,
        ),
        ("owner",),
    ),
    EventKind(TEST_TYPE, "Its owner asked for a test", _data(message=_TEXT, asked_for=_ANYTHING)),
)
