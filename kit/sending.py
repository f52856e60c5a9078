"""Accounts at those who send mail and text messages, as settings name them."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Where vendors report to, behind the public address.
SENDGRID_RECEIPTS = "/api/v1/alerts/receipts/sendgrid"
TWILIO_RECEIPTS = "/api/v1/alerts/receipts/twilio"
#: As many as a worker has activities under way, so that none of them waits for a thread.
THREADS = 20


@dataclass(frozen=True, slots=True)
class SendGridAccount:
    """``sender`` and ``reply_to`` are ``name <address>``. ``threads`` calls at a time, each of ``timeout_seconds``."""

    api_key: str = field(repr=False)
    sender: str
    reply_to: str | None = None
    url: str = "https://api.sendgrid.com"
    timeout_seconds: float = 8.0
    threads: int = THREADS


@dataclass(frozen=True, slots=True)
class TwilioAccount:
    """``user`` and ``secret`` are the account and its token, or an API key and its secret. ``sender`` is a number of
    the account (E.164), or a messaging service (``MG…``). ``report_to`` is the address of our receipts, where it has
    one. What is not in its list ``settle_seconds`` after an attempt began was never taken."""

    account_sid: str
    user: str
    secret: str = field(repr=False)
    sender: str
    report_to: str | None = None
    url: str = "https://api.twilio.com"
    timeout_seconds: float = 8.0
    threads: int = THREADS
    settle_seconds: float = 40.0
