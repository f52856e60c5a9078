"""Who sends mail and text messages, by the settings; nobody where they name no vendor."""

from __future__ import annotations

from activities.vendors.sendgrid import SendGridMail
from activities.vendors.twilio import TwilioSms
from kit.settings import WorkerSettings

#: Where vendors report to, behind the public address.
SENDGRID_RECEIPTS = "/api/v1/alerts/receipts/sendgrid"
TWILIO_RECEIPTS = "/api/v1/alerts/receipts/twilio"


def create_mail(settings: WorkerSettings) -> SendGridMail | None:
    """SendGrid, where MAIL_SENDGRID_API_KEY is set."""
    if settings.mail_sendgrid_api_key is None or settings.mail_from is None:
        return None
    return SendGridMail(
        settings.mail_sendgrid_api_key.get_secret_value(),
        settings.mail_from,
        reply_to=settings.mail_reply_to,
        url=settings.mail_sendgrid_url,
        timeout_seconds=settings.mail_timeout_seconds,
        threads=settings.mail_threads,
    )


def create_sms(settings: WorkerSettings) -> TwilioSms | None:
    """Twilio, where SMS_TWILIO_ACCOUNT_SID is set."""
    account, sender = settings.sms_twilio_account_sid, settings.sms_from
    secret = settings.sms_twilio_key_secret or settings.sms_twilio_auth_token
    if account is None or sender is None or secret is None:
        return None
    return TwilioSms(
        account,
        settings.sms_twilio_key_sid or account,
        secret.get_secret_value(),
        sender,
        report_to=settings.public_url + TWILIO_RECEIPTS,
        url=settings.sms_twilio_url,
        timeout_seconds=settings.sms_timeout_seconds,
        threads=settings.sms_threads,
    )
