"""From accounts to those who send. Only what is configured is imported."""

from __future__ import annotations

from activities.ports import MailSender, SmsSender
from kit.sending import SendGridAccount, TwilioAccount


def mail_sender(account: SendGridAccount | None) -> MailSender | None:
    """Mail through SendGrid, where there is an account."""
    if account is None:
        return None
    from activities.vendors.sendgrid import SendGridMail

    return SendGridMail(account)


def sms_sender(account: TwilioAccount | None) -> SmsSender | None:
    """Text messages through Twilio, where there is an account."""
    if account is None:
        return None
    from activities.vendors.twilio import TwilioSms

    return TwilioSms(account)
