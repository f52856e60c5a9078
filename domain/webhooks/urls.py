"""What may be the URL of an endpoint. Stricter than the standards: nothing that two parsers could read differently."""

from __future__ import annotations

import re
from dataclasses import dataclass

from domain.errors import Refusal
from domain.webhooks.addresses import Address, Reach, literal, numeric

URL_LENGTH_MAX = 2_048
HOST_LENGTH_MAX = 253
LABEL_LENGTH_MAX = 63
HTTPS_PORT = 443
HTTP_PORT = 80
#: From here on a port is nobody's in particular, but for those that speak something else (the Fetch standard's).
OPEN_PORT_MIN = 1_024
NOT_FOR_HTTP = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}
)
#: Names that never belong to the public Internet.
INSIDE = frozenset(
    {"localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "onion"}
)
INSIDE_BELOW = "home.arpa"

_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>(?:/[^?#]*)?(?:\?[^#]*)?)",
    re.IGNORECASE,
)
_REST = re.compile(r"(?:[A-Za-z0-9/?:@!$&'()*+,;=._~\[\]-]|%[0-9A-Fa-f]{2})*")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, taken apart once: who connects does not parse it again. ``host`` is in lower case and without brackets,
    ``address`` what it is where it is no name; ``listed``: an operator's list has it."""

    url: str
    https: bool
    host: str
    port: int
    address: Address | None
    listed: bool


def target_of(url: str, reach: Reach, *, field: str = "url") -> Target:
    """Where a URL leads; raises ``Refusal`` ``webhook_url_refused`` for one that may not be called.

    What a name resolves to is seen only when it is called, and judged then, each time.
    """
    found = _parsed(url, field)
    scheme, host, port = found["scheme"].lower(), found["host"].lower(), found["port"]
    host = host.removeprefix("[").removesuffix("]")
    if scheme not in ("https", "http"):
        raise _refused("must begin with https://", field)
    address = literal(host)
    listed = reach.lists(host)
    if address is None:
        _check_name(host, field, listed=listed)
    elif not reach.admits(address):
        raise _refused("leads to an address that is not public", field)
    if scheme == "http" and not listed:
        raise _refused("must begin with https://", field)
    number = int(port) if port else HTTPS_PORT if scheme == "https" else HTTP_PORT
    _check_port(number, field, listed=listed)
    shown = f"[{host}]" if ":" in host else host
    rest = found["rest"] if found["rest"].startswith("/") else f"/{found['rest']}"
    text = f"{scheme}://{shown}{f':{number}' if port else ''}{rest}"
    return Target(text, scheme == "https", host, number, address, listed)


def _parsed(url: str, field: str) -> dict[str, str]:
    if len(url) > URL_LENGTH_MAX:
        raise _refused(f"may have {URL_LENGTH_MAX} characters", field)
    if not url.isascii():
        raise _refused("must be in ASCII: a host as xn--…, anything else percent-encoded", field)
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise _refused("may not hold a user's name or password", field)
    if "#" in url:
        raise _refused("may not have a fragment", field)
    found = _URL.fullmatch(url)
    if found is None:
        raise _refused("must be https://host/path, perhaps with a port and a query", field)
    if _REST.fullmatch(found["rest"]) is None:
        raise _refused("has characters after the host that must be percent-encoded", field)
    return {name: value or "" for name, value in found.groupdict().items()}


def _check_name(host: str, field: str, *, listed: bool) -> None:
    if numeric(host):
        raise _refused("must have an address in its usual form, four numbers from 0 to 255", field)
    labels = host.split(".")
    if len(host) > HOST_LENGTH_MAX or any(
        len(label) > LABEL_LENGTH_MAX or _LABEL.fullmatch(label) is None for label in labels
    ):
        raise _refused("must have a host's full name, without a dot at its end", field)
    if listed:
        return
    if len(labels) < 2 or labels[-1] in INSIDE or ".".join(labels[-2:]) == INSIDE_BELOW:
        raise _refused("must have a host that the public Internet knows", field)


def _check_port(port: int, field: str, *, listed: bool) -> None:
    if not 1 <= port <= 65_535:
        raise _refused("must have a port from 1 to 65535", field)
    if listed or port == HTTPS_PORT:
        return
    if port < OPEN_PORT_MIN or port in NOT_FOR_HTTP:
        raise _refused(f"must have port {HTTPS_PORT}, or from {OPEN_PORT_MIN} one that no other protocol has", field)


def _refused(reason: str, field: str) -> Refusal:
    return Refusal("webhook_url_refused", f"this URL cannot be called: it {reason}", field=field)
