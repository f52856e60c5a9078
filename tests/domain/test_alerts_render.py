"""Alerts in words."""

from __future__ import annotations

import json
from datetime import time
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.alerts import hours, links
from domain.alerts.model import AlertType, Preferences
from domain.alerts.render import EXAMPLES, SMS_CHARACTERS, callback_body, fit, locale_of, render
from domain.alerts.texts import LANGUAGES
from domain.errors import Refusal
from domain.margin.advice import Action
from tests.domain.alerts import T0, alert

LINK = "https://desk.example.com/a/" + "x" * 40
GSM = set("@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./:;<=>?¡ÄÖÑÜ§¿äöñüà^{}\\[~]|€")


@pytest.mark.parametrize("locale", sorted(LANGUAGES))
@pytest.mark.parametrize("alert_type", list(AlertType))
def test_every_alert_has_words_in_every_language(alert_type: AlertType, locale: str) -> None:
    told = alert(alert_type, facts=EXAMPLES[alert_type], occurrences=2)
    message = render(told, Preferences(locale=locale), link=LINK, code="7F3K")
    for text in (message.subject, message.text, message.html, message.sms):
        assert text
        assert "$" not in text
    assert len(message.sms) <= SMS_CHARACTERS
    assert message.sms.endswith(LINK)
    assert LINK in message.text
    assert f"href='{LINK}'" in message.html
    assert len(message.subject) <= 78


@pytest.mark.parametrize("locale", sorted(LANGUAGES))
@pytest.mark.parametrize("action", list(Action))
def test_every_advice_has_words_in_every_language(action: Action, locale: str) -> None:
    besides = [{"asset": "DAI", "amount": "20.5"}, {"asset": "USDT", "amount": "7"}]
    advice = {"action": str(action), "asset": "USDC", "amount": "300", "also_repay": besides, "repay_asset": "DAI"}
    told = alert(facts={"recommendations": [advice | {"repay_amount": "20.5"}]})
    text = render(told, Preferences(locale=locale), link=None, code=None).text
    assert "300 USDC" in text
    assert "$" not in text
    assert ("20.5 DAI, 7 USDT" in text) == (action is Action.REPAY_SEVERAL)


def test_a_language_is_found_by_its_first_part() -> None:
    assert [locale_of(name) for name in ("de-AT", "de_CH", "DE", "en-GB", "fr", "")] == ["de", "de", "de"] + ["en"] * 3


def test_facts_cannot_break_out_of_their_place() -> None:
    facts: dict[str, Any] = {"endpoint": "<script>alert(1)</script>\r\nBcc: x", "reason": "$code ${x} $$", "code": "c"}
    message = render(alert(AlertType.WEBHOOK_DISABLED, facts=facts), Preferences(), link=None, code=None)
    assert "<script>" not in message.html
    assert "\r" not in message.text
    assert "Reason: $code ${x} $$" in message.text


def test_a_missing_fact_is_no_fault() -> None:
    message = render(alert(facts={"recommendations": "nonsense"}), Preferences(), link=None, code=None)
    assert message.subject == "MARGIN CALL: health -"


def test_a_callback_says_what_the_mail_says() -> None:
    told = alert(facts=EXAMPLES[AlertType.CALL])
    message = render(told, Preferences(), link=LINK, code=None)
    said = json.loads(callback_body(told, message, T0, link=LINK))
    assert (said["type"], said["data"]["severity"], said["data"]["acknowledge_url"]) == ("alert.raised", "high", LINK)
    assert said["data"]["message"] == message.text


@given(st.text(max_size=400), st.sampled_from(["", LINK, f"Reply OK 7F3K. {LINK}"]))
def test_a_text_message_fits_whatever_is_in_it(text: str, end: str) -> None:
    told = fit(text, end)
    assert sum(2 if character in "^{}\\[~]|€" else 1 for character in told) <= SMS_CHARACTERS
    assert told.endswith(end)
    assert {character for character in told if not character.isascii()} <= GSM


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(1, 255))
def test_a_link_is_signed_by_its_alerts_key_alone(key: bytes, other: bytes, delivery: int) -> None:
    text = links.token(key, UUID(int=9), delivery)
    link = links.read(text)
    assert link is not None
    assert (link.notification_id, link.delivery, len(text)) == (UUID(int=9), delivery, 40)
    assert links.is_signed(link, key)
    assert key == other or not links.is_signed(link, other)
    assert not links.is_signed(link._replace(delivery=delivery % 255 + 1), key)
    assert not links.is_signed(link._replace(notification_id=UUID(int=8)), key)


@pytest.mark.parametrize("text", ["", "abc", "=" * 40, "ä" * 40, "A" * 41, "A" * 44])
def test_what_is_no_link(text: str) -> None:
    assert links.read(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("OK", (True, None)),
        (" ok 7f3k ", (True, "7F3K")),
        ("Ack.", (True, None)),
        ("YES!", (True, None)),
        ("ok: 7F3K.", (True, "7F3K")),
        ("okay then, who is this?", (False, None)),
        ("STOP", (False, None)),
        ("", (False, None)),
        ("not ok", (False, None)),
    ],
)
def test_what_an_answer_says(text: str, found: tuple[bool, str | None]) -> None:
    assert links.read_reply(text) == found


def test_wishes_that_mean_nothing_are_refused() -> None:
    for wishes, code in (
        (Preferences(time_zone="Mars/Olympus"), "time_zone_unknown"),
        (Preferences(time_zone="../../etc/passwd"), "time_zone_unknown"),
        (Preferences(quiet_from=time(1)), "quiet_hours_incomplete"),
        (Preferences(quiet_from=time(1), quiet_to=time(1)), "quiet_hours_incomplete"),
    ):
        with pytest.raises(Refusal, match=code):
            hours.check(wishes)
    hours.check(Preferences(time_zone="Asia/Kolkata", quiet_from=time(22), quiet_to=time(6)))
