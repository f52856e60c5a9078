"""The page behind the signed link in a message. Reading it changes nothing: scanners of mail follow every link."""

from __future__ import annotations

from contextlib import suppress
from html import escape
from typing import cast
from uuid import uuid5

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from api.deps import Services
from db.alerts import notifications, people
from db.alerts.notifications import Stored
from db.engine import tenant_transaction, transaction
from domain.alerts import links
from domain.alerts.model import Preferences
from domain.alerts.render import locale_of
from domain.errors import Refusal
from workflows.alerts import AcknowledgeAlert, OriginMessage

routes = APIRouter(tags=["alerts"], include_in_schema=False)

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
}
_WORDS = {
    "en": {
        "unknown": "This link is not valid.",
        "ask": "Acknowledge this alert? Nothing more is sent about it then.",
        "button": "Acknowledge",
        "done": "Acknowledged at {at}. Nothing more is sent about it.",
        "over": "This alert is over; there is nothing left to acknowledge.",
    },
    "de": {
        "unknown": "Dieser Link ist nicht gültig.",
        "ask": "Diesen Alarm bestätigen? Danach folgt nichts mehr dazu.",
        "button": "Bestätigen",
        "done": "Bestätigt um {at}. Dazu folgt nichts mehr.",
        "over": "Dieser Alarm ist vorbei; es gibt nichts mehr zu bestätigen.",
    },
}


@routes.get("/a/{token}")
async def show_acknowledgement(token: str, request: Request) -> HTMLResponse:
    """What the link is about, with a button."""
    services = cast(Services, request.app.state.services)
    found = await _find(services, token)
    return _page("en", "unknown", status=404) if found is None else _standing(*found)


@routes.post("/a/{token}")
async def acknowledge_by_link(token: str, request: Request) -> HTMLResponse:
    """Take note. The link says which delivery, and so which person, it came with."""
    services = cast(Services, request.app.state.services)
    found = await _find(services, token)
    if found is None:
        return _page("en", "unknown", status=404)
    stored, _ = found
    alert, link = stored.alert, links.read(token)
    assert link is not None, "it was read before"
    carried = alert.deliveries[link.delivery - 1 : link.delivery]
    by = carried[0].user_id if carried else alert.user_id
    command = AcknowledgeAlert(
        command_id=uuid5(alert.notification_id, token),
        by=by,
        via="link",
        origin=OriginMessage(user_id=by, request_id=str(request.state.request_id)),
    )
    with suppress(Refusal):  # It ended meanwhile; the page says so.
        await services.alerts.acknowledge(alert.tenant_id, alert.notification_id, command)
    after = await _find(services, token)
    assert after is not None, "alerts are not deleted"
    return _standing(*after)


async def _find(services: Services, token: str) -> tuple[Stored, str] | None:
    """The alert of a link that its own key signed, and its reader's language."""
    link = links.read(token)
    if link is None:
        return None
    async with transaction(services.engine) as connection:
        tenant = await notifications.tenant_of(connection, link.notification_id)
    if tenant is None:
        return None
    async with tenant_transaction(services.engine, tenant) as connection:
        stored = await notifications.find(connection, tenant, link.notification_id)
        if stored is None or not links.is_signed(link, stored.link_key):
            return None
        user = stored.alert.user_id
        wishes = (await people.preferences(connection, tenant, [user])).get(user, Preferences())
    return stored, locale_of(wishes.locale)


def _standing(stored: Stored, locale: str) -> HTMLResponse:
    alert = stored.alert
    told = (stored.message_body or "").partition("\n\n")[0]
    if alert.acknowledged is not None:
        return _page(locale, "done", told=told, at=f"{alert.acknowledged.at:%Y-%m-%d %H:%M UTC}")
    if alert.over:
        return _page(locale, "over", told=told)
    return _page(locale, "ask", told=told, button=True)


def _page(
    locale: str, said: str, *, told: str = "", at: str = "", button: bool = False, status: int = 200
) -> HTMLResponse:
    words = _WORDS[locale]
    parts = [f"<p>{escape(told)}</p>"] if told else []
    parts.append(f"<p><strong>{escape(words[said].format(at=at))}</strong></p>")
    if button:
        parts.append(f"<form method='post'><button>{escape(words['button'])}</button></form>")
    style = (
        "body{font-family:sans-serif;max-width:560px;margin:40px auto;padding:0 16px}"
        "button{font-size:18px;padding:12px 24px}"
    )
    page = (
        f"<!doctype html><html lang='{locale}'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'><title>Holdfast</title>"
        f"<style>{style}</style></head><body>{''.join(parts)}</body></html>"
    )
    return HTMLResponse(page, status, _HEADERS)
