"""From settings to those who send: what is needed together, what is not shown, and what is not loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.vendors.callback import CallbackClient
from activities.vendors.outward import OutwardClient
from activities.vendors.senders import mail_sender, sms_sender
from kit.settings import ApiSettings, WorkerSettings, load
from outside import create_senders
from tests.vendors.mailer import API_KEY
from tests.vendors.texter import ACCOUNT, NUMBER, TOKEN

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a secret of an API key"
KEY_SID = "SK" + "0123456789abcdef" * 2
NEEDED = {
    "DATABASE_URL": "postgresql://nowhere",
    "TEMPORAL_ADDRESS": "nowhere:1",
    "SEAL_KEY_FILE": "key",
    "CHECKPOINT_DIR": "checkpoints",
}
OUTSIDE = {"PUBLIC_URL": "https://desk.example.com/"}
MAIL = {**OUTSIDE, "MAIL_SENDGRID_API_KEY": API_KEY, "MAIL_FROM": "Holdfast <alerts@example.com>"}
SMS = {**OUTSIDE, "SMS_TWILIO_ACCOUNT_SID": ACCOUNT, "SMS_TWILIO_AUTH_TOKEN": TOKEN, "SMS_FROM": NUMBER}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def settings(environment: pytest.MonkeyPatch, given: dict[str, str]) -> WorkerSettings:
    for name, value in given.items():
        environment.setenv(name, value)
    return load(WorkerSettings)


async def test_without_keys_nobody_is_asked(environment: pytest.MonkeyPatch) -> None:
    read = settings(environment, {})
    assert (read.sendgrid, read.twilio) == (None, None)
    assert (mail_sender(read.sendgrid), sms_sender(read.twilio)) == (None, None)


async def test_with_keys_there_is_a_sender_of_each(environment: pytest.MonkeyPatch) -> None:
    read = settings(environment, {**MAIL, **SMS})
    mail, sms = mail_sender(read.sendgrid), sms_sender(read.twilio)
    assert mail is not None
    assert sms is not None
    assert (mail.name, sms.name) == ("sendgrid", "twilio")
    assert read.twilio is not None
    assert (read.twilio.user, read.twilio.secret) == (ACCOUNT, TOKEN)
    assert read.twilio.report_to == "https://desk.example.com/api/v1/alerts/receipts/twilio"
    shown = repr(read) + repr(read.sendgrid) + repr(read.twilio)
    assert API_KEY not in shown
    assert TOKEN not in shown
    await mail.close()
    await sms.close()


def test_an_api_key_goes_before_the_token(environment: pytest.MonkeyPatch) -> None:
    read = settings(environment, {**SMS, "SMS_TWILIO_KEY_SID": KEY_SID, "SMS_TWILIO_KEY_SECRET": SECRET})
    assert read.twilio is not None
    assert (read.twilio.account_sid, read.twilio.user, read.twilio.secret) == (ACCOUNT, KEY_SID, SECRET)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"PUBLIC_URL": "desk.example.com"}, "PUBLIC_URL must be an http:// or https:// URL"),
        ({"PUBLIC_URL": "https://user:secret@desk.example.com"}, "PUBLIC_URL must be an http:// or https:// URL"),
        ({"PUBLIC_URL": "https://desk.example.com:99999"}, "PUBLIC_URL must be an http:// or https:// URL"),
        ({**MAIL, "MAIL_SENDGRID_API_KEY": "SG.two words"}, "MAIL_SENDGRID_API_KEY must be one word"),
        ({**MAIL, "MAIL_FROM": ""}, "MAIL_FROM must be set where MAIL_SENDGRID_API_KEY is"),
        ({**MAIL, "MAIL_FROM": "Holdfast"}, "MAIL_FROM must be an address, or Name <address>"),
        ({**MAIL, "MAIL_REPLY_TO": "desk"}, "MAIL_REPLY_TO must be an address, or Name <address>"),
        ({**MAIL, "MAIL_SENDGRID_URL": "http://api.sendgrid.com"}, "MAIL_SENDGRID_URL must be an https:// URL"),
        ({**MAIL, "PUBLIC_URL": ""}, "MAIL_FROM needs PUBLIC_URL"),
        ({**MAIL, "MAIL_TIMEOUT_SECONDS": "60"}, "MAIL_TIMEOUT_SECONDS "),
        ({**SMS, "SMS_TWILIO_ACCOUNT_SID": "AC1"}, "SMS_TWILIO_ACCOUNT_SID "),
        ({**SMS, "SMS_FROM": ""}, "SMS_FROM must be set where SMS_TWILIO_ACCOUNT_SID is"),
        ({**SMS, "SMS_FROM": "0170 1234567"}, "SMS_FROM "),
        ({**SMS, "PUBLIC_URL": "http://localhost:8080"}, "SMS_FROM needs PUBLIC_URL"),
        ({**SMS, "SMS_TWILIO_AUTH_TOKEN": ""}, "SMS_TWILIO_KEY_SECRET or SMS_TWILIO_AUTH_TOKEN must be set"),
        ({**SMS, "SMS_TWILIO_KEY_SID": KEY_SID}, "SMS_TWILIO_KEY_SECRET must be set where SMS_TWILIO_KEY_SID is"),
        ({**SMS, "SMS_TWILIO_KEY_SECRET": SECRET}, "SMS_TWILIO_KEY_SECRET is of no use without SMS_TWILIO_KEY_SID"),
    ],
)
def test_a_setting_at_fault_is_named_and_no_key_shown(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: dict[str, str], fault: str
) -> None:
    with pytest.raises(SystemExit):
        settings(environment, given)
    said = capsys.readouterr().err
    assert f"configuration: {fault}" in said
    assert not any(secret in said for secret in (API_KEY, TOKEN, SECRET, "SG.two"))


def test_a_vendor_on_this_machine_needs_no_public_address(environment: pytest.MonkeyPatch) -> None:
    local = {"PUBLIC_URL": "", "MAIL_SENDGRID_URL": "http://127.0.0.1:1", "SMS_TWILIO_URL": "http://localhost:1"}
    read = settings(environment, {**MAIL, **SMS, **local})
    assert read.public_url == "http://127.0.0.1:8080"
    assert read.sendgrid is not None


def test_the_api_is_told_whose_events_to_believe(environment: pytest.MonkeyPatch, capsys: Any) -> None:
    assert load(ApiSettings).mail_sendgrid_receipt_key is None
    environment.setenv("MAIL_SENDGRID_RECEIPT_KEY", "nonsense")
    with pytest.raises(SystemExit):
        load(ApiSettings)
    assert "MAIL_SENDGRID_RECEIPT_KEY this is not a public key as SendGrid shows it" in capsys.readouterr().err


def test_no_sdk_loads_where_no_account_is_configured() -> None:
    program = (
        "import sys, api.main, worker; from activities.vendors.senders import mail_sender, sms_sender;"
        "mail_sender(None); sms_sender(None);"
        "print([m for m in ('sendgrid', 'python_http_client', 'twilio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


async def test_callbacks_leave_through_the_door_and_the_rest_stays_where_no_account_is(
    environment: pytest.MonkeyPatch, engine: AsyncEngine
) -> None:
    made = create_senders(settings(environment, {}), engine, OutwardClient())
    assert isinstance(made.callback, CallbackClient)
    assert (made.mail.name, made.sms.name) == ("mailbox", "mailbox")
    with_accounts = create_senders(settings(environment, {**MAIL, **SMS}), engine, OutwardClient())
    assert (with_accounts.mail.name, with_accounts.sms.name) == ("sendgrid", "twilio")
    await made.close()
    await with_accounts.close()
