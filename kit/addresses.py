"""Addresses as people write them, in the one form that is kept."""

from __future__ import annotations

import phonenumbers
from email_validator import EmailNotValidError, validate_email


def mail_address(text: str) -> str | None:
    """A mail address with its domain in lower case; None when it is none. Nobody is asked whether it exists."""
    try:
        return validate_email(text.strip(), check_deliverability=False, allow_smtputf8=False).normalized
    except EmailNotValidError:
        return None


def telephone_number(text: str) -> str | None:
    """A number as E.164; None unless it begins with its country and may exist."""
    if not text.strip().startswith("+"):
        return None
    try:
        number = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
