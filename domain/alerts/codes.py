"""What the rules of alerts refuse, and what that means."""

from __future__ import annotations

from typing import Final

CODES: Final = {
    "alert_unknown": "there is no such alert",
    "alert_closed": "the alert is over: what it told of has passed, or a worse one has taken its place",
    "contact_unknown": "there is no such contact",
    "contact_address_invalid": "an address is a mail address, a number as +4915112345678, or an https URL",
    "contact_taken": "the user has this contact already",
    "contact_code_wrong": "this is not the code that was sent",
    "contact_code_expired": "the code is too old, or was guessed at too often; have another one sent",
    "contact_verified": "the contact is verified already",
    "time_zone_unknown": "a time zone is named as in the IANA database: Europe/Berlin",
    "locale_unknown": "there are no texts in this language; `GET /api/v1/alerts/templates` lists them",
    "quiet_hours_incomplete": "quiet hours have a beginning and an end, which differ",
    "policy_steps_invalid": "a policy has 1 to 10 steps; the first begins at once, each later one after a pause",
    "template_unknown": "there is no such template",
    "signature_invalid": "a receipt needs the signature of its vendor, whose key is among the settings",
    "receipt_unreadable": "a receipt with a right signature is not what its vendor documents",
}
