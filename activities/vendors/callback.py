"""Alerts to a user's own system: a signed request (Standard Webhooks) through the one door outwards.

Its id stays the same over attempts, so a receiver that keeps to the standard drops what comes again: an attempt whose
end is unknown may be repeated, where a vendor's may not.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from activities.ports import Answered, Callback, Handed, NotSent, NotTaken, Outward, Rejected, Taken, Unsure
from activities.vendors.http import asked_seconds
from kit.clock import now
from kit.standardwebhooks import PrivateKey, SharedSecret, Signer, signed

DEADLINE_SECONDS = 15.0
READ_BYTES = 4_096
RETRY_AFTER_SECONDS_MAX = 3_600.0
#: Statuses by which a server says that it did not act on the request, and may another time.
_NOT_NOW = frozenset({408, 425, 429, 503})
_SAID_LENGTH_MAX = 200


class CallbackClient:
    """Sends callbacks. With ``house``, a ``v1a`` signature of it stands beside the ``v1`` of the user's secret."""

    name = "callback"

    def __init__(
        self,
        outward: Outward,
        *,
        house: PrivateKey | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._outward = outward
        self._house = house
        self._deadline_seconds = deadline_seconds
        self._clock = clock

    async def send(self, callback: Callback) -> Handed:
        """Sign and send it once; 2xx is taken, and delivered with it."""
        keys: list[Signer] = [SharedSecret(callback.secret)]
        if self._house is not None:
            keys.append(self._house)
        headers = signed(callback.message_id, self._clock(), callback.body, keys) | {"content-type": "application/json"}
        reached = await self._outward.post(
            callback.url, headers, callback.body, deadline_seconds=self._deadline_seconds, read_bytes=READ_BYTES
        )
        if isinstance(reached, NotSent):
            return Rejected("address_refused", reached.reason) if reached.blocked else NotTaken(reached.reason)
        return self._said(callback, reached) if isinstance(reached, Answered) else Unsure(reached.reason)

    async def close(self) -> None:
        """The door is another's to close."""
        return

    def _said(self, callback: Callback, answer: Answered) -> Handed:
        detail = f"HTTP {answer.status}"
        if 200 <= answer.status < 300:
            return Taken(callback.message_id, detail, delivered=True)
        if text := answer.body.decode(errors="replace").strip():
            detail += ": " + "".join(sign if sign.isprintable() else " " for sign in text[:_SAID_LENGTH_MAX])
        if answer.status in _NOT_NOW:
            asked = asked_seconds(answer.headers.get("retry-after", ""), self._clock())
            return NotTaken(detail, None if asked is None else min(asked, RETRY_AFTER_SECONDS_MAX))
        if 300 <= answer.status < 500 or answer.status in (501, 505):
            return Rejected(f"http_{answer.status}", detail)
        return Unsure(detail)
