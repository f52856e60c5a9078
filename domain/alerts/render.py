"""An alert in words: a mail as text and as HTML, a text message that fits into one, and the body of a callback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape
from string import Template
from typing import Any, Final

from domain.alerts.hours import zone
from domain.alerts.model import Alert, AlertType, Preferences
from domain.alerts.texts import LANGUAGES, Language
from domain.errors import Refusal

#: What one text message holds: characters of GSM 03.38, or of UCS-2 where one of them is not in that alphabet.
SMS_CHARACTERS: Final = 160
LINK_CHARACTERS: Final = 90
_GSM: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED: Final = frozenset("^{}\\[~]|€")
_VALUE_CHARACTERS: Final = 200
#: Advice beyond the first few helps nobody who reads it on a telephone.
_ADVICE_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Message:
    """An alert in words."""

    subject: str
    text: str
    html: str
    sms: str


def locale_of(wanted: str) -> str:
    """The language that texts are in for a locale as ``de-AT``; English where there are none in it."""
    language = wanted.replace("_", "-").partition("-")[0].lower()
    return language if language in LANGUAGES else "en"


def check_locale(wanted: str) -> None:
    """Refuses a locale in whose language there are no texts."""
    if wanted.replace("_", "-").partition("-")[0].lower() not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise Refusal("locale_unknown", f"there are no texts in {wanted[:20]!r}, but in: {known}", field="locale")


def render(alert: Alert, wishes: Preferences, *, link: str | None, code: str | None) -> Message:
    """The alert in its reader's language. ``link`` acknowledges it, ``code`` names it in an answer; both are None where
    nobody has to take note."""
    language = LANGUAGES[locale_of(wishes.locale)]
    words = language.alerts[alert.alert_type]
    since = alert.raised_at.astimezone(zone(wishes.time_zone))
    values = _values(alert.facts) | {"count": str(alert.occurrences), "since": f"{since:%H:%M %Z}"}
    subject = _filled(words.subject, values)
    lead = [_filled(words.lead, values)]
    if alert.occurrences > 1:
        lead.append(_filled(language.repeated, values))
    facts = [(label, values[name]) for name, label in language.facts.items() if name in values]
    advice = _advice(language, alert.facts)
    sms = [_filled(words.short, values)]
    if alert.occurrences > 1:
        sms.append(_filled(language.repeated_short, values))
    answer = [] if code is None else [_filled(language.reply, {"code": code})]
    # A link so long that it leaves no room for what happened is left out; the code answers too.
    answer += [] if link is None or len(link) > LINK_CHARACTERS else [link]
    return Message(
        subject=subject,
        text=_text(language, lead, facts, advice, link),
        html=_html(language, subject, lead, facts, advice, link),
        sms=fit(" ".join(sms), " ".join(answer)),
    )


def callback_body(alert: Alert, message: Message, at: datetime, *, link: str | None) -> bytes:
    """What a user's own system is sent."""
    said: dict[str, Any] = {
        "type": "alert.raised",
        "timestamp": at.isoformat(),
        "data": {
            "notification_id": str(alert.notification_id),
            "alert_type": alert.alert_type,
            "severity": alert.severity,
            "user_id": alert.user_id,
            "occurrences": alert.occurrences,
            "subject": message.subject,
            "message": message.text,
            "acknowledge_url": link,
            "facts": dict(alert.facts),
        },
    }
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()


def fit(text: str, end: str) -> str:
    """``text`` and ``end`` as one text message. What the alphabet of telephones lacks is replaced, and ``text`` is cut
    where both are too long; ``end``, which has how to answer, is not."""
    text = "".join(character if character in _GSM or character in _EXTENDED else "?" for character in text)
    room = SMS_CHARACTERS - (_units(end) + 1 if end else 0)
    if _units(text) > room:
        while _units(text) > max(0, room - 3):
            text = text[:-1]
        text = f"{text.rstrip()}..."
    return f"{text} {end}".strip()


def _units(text: str) -> int:
    return sum(2 if character in _EXTENDED else 1 for character in text)


def _values(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as they stand in a sentence: one line, not endless; a health factor with four places, cut."""
    values: dict[str, str] = {}
    for name, value in facts.items():
        if isinstance(value, str | int) and not isinstance(value, bool):
            # What no text can carry, as half of a pair of surrogates, is replaced.
            said = str(value).encode("utf-8", "replace").decode()
            values[name] = " ".join(said.split())[:_VALUE_CHARACTERS]
    for name, places in (("health_score", 4), ("collateral_usd", 2), ("borrow_usd", 2)):
        whole, point, fraction = values.get(name, "").partition(".")
        if point:
            values[name] = f"{whole}.{fraction[:places]}"
    return values


def _advice(language: Language, facts: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The head of the advice, and one line each; both empty where there is none."""
    given = [one for one in facts.get("recommendations") or () if isinstance(one, Mapping)]
    lines: list[str] = []
    for one in given[:_ADVICE_MAX]:
        words = language.advice.get(str(one.get("action")))
        if words is not None:
            lines.append(_filled(words, _values(one) | {"also_repay": _besides(one.get("also_repay"))}))
    if not lines:
        return "", []
    target = str(given[0].get("target_health_score", ""))
    return _filled(language.advice_head, {"target": target}), lines


def _besides(debts: Any) -> str:
    """Further debts with their amounts."""
    given = [_values(one) for one in debts or () if isinstance(one, Mapping)]
    return ", ".join(f"{one.get('amount', '-')} {one.get('asset', '-')}" for one in given)


def _filled(words: str, values: Mapping[str, str]) -> str:
    """A fact that is missing leaves a dash."""
    template = Template(words)
    return template.substitute({name: values.get(name, "-") for name in template.get_identifiers()})


def _text(
    language: Language, lead: list[str], facts: list[tuple[str, str]], advice: tuple[str, list[str]], link: str | None
) -> str:
    blocks = [*lead]
    if facts:
        blocks.append("\n".join(f"{label}: {value}" for label, value in facts))
    if advice[1]:
        blocks.append("\n".join([advice[0], *(f"- {line}" for line in advice[1])]))
    if link is not None:
        blocks.append(f"{language.button}: {link}")
    return "\n\n".join([*blocks, language.footer]) + "\n"


def _html(
    language: Language,
    subject: str,
    lead: list[str],
    facts: list[tuple[str, str]],
    advice: tuple[str, list[str]],
    link: str | None,
) -> str:
    parts = [f"<h1 style='font-size:20px'>{escape(subject)}</h1>", *(f"<p>{escape(line)}</p>" for line in lead)]
    if facts:
        rows = "".join(
            f"<tr><td style='padding:2px 16px 2px 0;color:#555'>{escape(label)}</td><td>{escape(value)}</td></tr>"
            for label, value in facts
        )
        parts.append(f"<table>{rows}</table>")
    if advice[1]:
        lines = "".join(f"<li>{escape(line)}</li>" for line in advice[1])
        parts.append(f"<p>{escape(advice[0])}</p><ul>{lines}</ul>")
    if link is not None:
        style = "display:inline-block;padding:10px 18px;background:#1a4fd6;color:#fff;text-decoration:none"
        parts.append(f"<p><a href='{escape(link)}' style='{style}'>{escape(language.button)}</a></p>")
    parts.append(f"<p style='color:#777;font-size:12px'>{escape(language.footer)}</p>")
    body = "".join(parts)
    return (
        "<!doctype html><html><head><meta charset='utf-8'></head>"
        f"<body style='font-family:sans-serif;max-width:560px'>{body}</body></html>"
    )


#: Facts that a preview shows where the caller brings none.
EXAMPLES: Final[Mapping[AlertType, Mapping[str, Any]]] = {
    **{
        kind: {
            "health_score": health,
            "threshold_breached": threshold,
            "collateral_usd": "18000.00000000",
            "borrow_usd": "15000.00000000",
            "recommendations": [
                {"action": "repay", "asset": "USDC", "amount": "1000.000000", "target_health_score": "1.5000"},
                {"action": "top_up", "asset": "ETH", "amount": "0.750000", "target_health_score": "1.5000"},
            ],
        }
        for kind, health, threshold in (
            (AlertType.WARNING, "1.449000", "1.5000"),
            (AlertType.CALL, "1.188000", "1.2000"),
            (AlertType.IMMINENT, "1.041000", "1.0500"),
            (AlertType.DUE, "0.996000", "1.0000"),
        )
    },
    AlertType.RECOVERED: {"health_score": "1.612000", "threshold_breached": "1.5000"},
    AlertType.WEBHOOK_DISABLED: {"endpoint": "https://example.com/hooks", "reason": "failed for five days"},
    AlertType.AUDIT_DISAGREED: {"account": "alice", "told_level": "HEALTHY", "strict_level": "MARGIN_CALL"},
    AlertType.RELAYER_HALTED: {
        "relayer": "mainnet:0x5f4ec3df9cbd43714fe2740f5e3616155c5b8419",
        "reason": "block 21000000 was final, and providers a and b have another one in its place",
    },
    AlertType.PROVIDER_ACCUSED: {
        "chain": "mainnet",
        "provider": "a",
        "reason": "event 17 is missing between blocks 21000000 and 21000100",
    },
    AlertType.EVENT_DISAGREED: {
        "relayer": "mainnet:0x5f4ec3df9cbd43714fe2740f5e3616155c5b8419",
        "event": "Released",
        "onchain_id": "0x9b1f…",
        "reason": "the milestone is not approved",
    },
    AlertType.BOOKS_DIFFER: {
        "relayer": "mainnet:0x5f4ec3df9cbd43714fe2740f5e3616155c5b8419",
        "token": "0x0000000000000000000000000000000000000000",
        "block": 21000000,
        "unexplained": "-1000000000000000000",
    },
    AlertType.BACKFILL_FAILED: {
        "job": "01a218cd-d24a-7672-8eb0-e907a7634772",
        "name": "mainnet:0x5f4ec3df9cbd43714fe2740f5e3616155c5b8419",
        "from_block": 20000000,
        "to_block": 21000000,
        "reason": "no provider of mainnet has those blocks",
    },
    AlertType.CONTACT_CODE: {"code": "123456"},
}
