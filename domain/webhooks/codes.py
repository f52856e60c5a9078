"""Every code with which the rules of webhooks refuse, and what it means. Codes are for ever; wording may improve."""

from __future__ import annotations

from typing import Final

CODES: Final = {
    "webhook_url_refused": "the URL is none that may be called; the message says why",
    "event_type_unknown": "no event of the catalogue has this type, or begins so",
    "event_types_missing": "an endpoint names at least one type of event",
    "header_not_allowed": "this header is set by the sender, or is none at all",
    "webhook_disabled": "nothing is sent to an endpoint that is disabled: enable it first",
    "delivery_waiting": "the delivery is waiting for its next attempt already",
    "range_empty": "a range ends after it begins",
}
