"""Asking an address whether it is well."""

from __future__ import annotations

import http.client
import urllib.request


def http_ok(url: str, *, timeout_seconds: float = 2.0) -> bool:
    """Whether a GET is answered with a 2xx."""
    if not url.startswith(("http://", "https://")):
        return False
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as answer:  # noqa: S310 - checked above
            status: int = answer.status
            return 200 <= status < 300
    except (OSError, ValueError, http.client.HTTPException):
        return False
