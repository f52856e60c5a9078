"""Mail through SendGrid's SDK: one client a thread, no second try by anybody, and no key in any word."""

from __future__ import annotations

import http.client
import logging
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from email.utils import parseaddr
from functools import partial
from typing import Any
from urllib.error import URLError

import python_http_client
from python_http_client.exceptions import HTTPError
from sendgrid import SendGridAPIClient

from activities.ports import Handed, Mail, NotTaken, Rejected, Taken, Unsure
from activities.vendors.calls import Gate, NotReached, Overdue, Threads, count, retry_after_seconds
from kit import shallow
from kit.receipts import SENDGRID_ATTEMPT
from kit.redaction import in_words
from kit.sending import SendGridAccount

_CONNECT_SECONDS_MAX = 5.0
_TOO_MANY, _REQUEST_TIMEOUT, _SERVER_ERROR = 429, 408, 500

_log = logging.getLogger(__name__)
# At DEBUG the SDK writes the headers, and with them the key.
logging.getLogger("python_http_client").setLevel(logging.WARNING)


class SendGridMail:
    """``MailSender`` over ``POST /v3/mail/send``. There is no idempotency key and no look-up there: what became of a
    mail whose answer was lost, only its events say."""

    def __init__(self, account: SendGridAccount) -> None:
        key = account.api_key
        if not key.isascii() or not key.isprintable() or " " in key:
            # What comes of it further down has the key in its text.
            raise ValueError("this is no SendGrid API key")
        self._account = account
        self._sender = _person(account.sender)
        self._reply_to = None if account.reply_to is None else _person(account.reply_to)
        self._threads = Threads(self.name, account.threads, account.timeout_seconds)
        self._local = threading.local()

    @property
    def name(self) -> str:
        """The vendor."""
        return "sendgrid"

    async def send(self, mail: Mail) -> Handed:
        """Hand it over once; see ``MailSender``. Taken means queued there."""
        gate = Gate()
        try:
            handed = await self._threads.call(partial(self._send, self._body(mail), gate))
        except (NotReached, Overdue) as error:
            handed = NotTaken(str(error)) if gate.close() else Unsure(str(error))
        except (URLError, OSError, http.client.HTTPException) as error:
            # Their texts may hold an address, so their class has to do.
            words = f"no answer: {_class_of(error)}"
            handed = NotTaken(words) if gate.close() else Unsure(words)
        if isinstance(handed, Taken) and not handed.reference:
            handed = Taken(str(mail.attempt_id), handed.detail)
        return count(self.name, handed)

    async def close(self) -> None:
        """Let go of the threads and their clients."""
        await self._threads.close()
        self._local = threading.local()

    def _body(self, mail: Mail) -> dict[str, Any]:
        body: dict[str, Any] = {
            "from": self._sender,
            # The id goes with the recipient: the published description knows no such object beside the recipients.
            "personalizations": [{"to": [{"email": mail.to}], "custom_args": {SENDGRID_ATTEMPT: str(mail.attempt_id)}}],
            "subject": mail.subject,
            "content": [{"type": "text/plain", "value": mail.text}, {"type": "text/html", "value": mail.html}],
            "headers": {"Auto-Submitted": "auto-generated"},
            # It would put its own addresses in the place of our signed links, and pictures into margin calls.
            "tracking_settings": {
                "click_tracking": {"enable": False, "enable_text": False},
                "open_tracking": {"enable": False},
                "subscription_tracking": {"enable": False},
            },
        }
        return body if self._reply_to is None else {**body, "reply_to": self._reply_to}

    def _send(self, body: dict[str, Any], gate: Gate) -> Handed:
        """In a thread: one request and its answer."""
        client = self._client()
        self._local.gate = gate
        try:
            answer = client.send(body)
        except HTTPError as error:
            return self._refused(error)
        return Taken(str(answer.headers.get("X-Message-Id") or ""), f"HTTP {answer.status_code}")

    def _refused(self, error: HTTPError) -> Handed:
        status: int = error.status_code
        words = f"HTTP {status}: {self._words(error)}".removesuffix(": ")
        if status == _TOO_MANY:
            return NotTaken(words, retry_after_seconds(error.headers))
        if status >= _SERVER_ERROR or status == _REQUEST_TIMEOUT:
            return Unsure(words)
        _log.error("SendGrid refuses a mail", extra={"status": status, "reason": words})
        return Rejected(str(status), words)

    def _words(self, error: HTTPError) -> str:
        """What it says is wrong, and of which field."""
        try:
            errors = shallow.loads(error.body)["errors"]
            told = [" ".join(filter(None, (_text(each, "field"), _text(each, "message")))) for each in errors]
        except (ValueError, KeyError, TypeError, AttributeError):
            return ""
        return in_words("; ".join(told), [self._account.api_key])

    def _client(self) -> Any:
        """This thread's own: headers of one call would show up in the next of another thread."""
        if not hasattr(self._local, "client"):
            made = SendGridAPIClient(self._account.api_key, host=self._account.url)
            made.client = _Client(
                host=made.host,
                request_headers=made.client.request_headers,
                version=3,
                timeout=self._account.timeout_seconds,
                opener=_opener(self._local),
            )
            self._local.client = made
        return self._local.client


class _Client(python_http_client.Client):  # type: ignore[misc]  # it has no types
    """The SDK's client with an opener of ours: no redirects, and connecting told from sending."""

    def __init__(self, *, opener: urllib.request.OpenerDirector, **how: Any) -> None:
        super().__init__(**how)
        self._opener = opener

    def _build_client(self, name: str | None = None) -> _Client:
        return _Client(
            opener=self._opener,
            host=self.host,
            version=self._version,
            request_headers=self.request_headers,
            url_path=[*self._url_path, name] if name else self._url_path,
            timeout=self.timeout,
        )

    def _make_request(self, _: object, request: urllib.request.Request, timeout: float | None = None) -> Any:
        return super()._make_request(self._opener, request, timeout)


def _opener(local: threading.local) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Plain(local), _Secure(local), _NoRedirects())


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, local: threading.local) -> None:
        super().__init__()
        self._local = local

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_PlainConnection, self._local.gate), req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, local: threading.local) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(context=self._tls)
        self._local = local

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_SecureConnection, self._local.gate), req, context=self._tls)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The SDK would follow with a GET, and call what comes then an answer."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, gate: Gate, host: str, **how: Any) -> None:
        super().__init__(host, **how)
        self._gate = gate

    def connect(self) -> None:
        _connect(self, super().connect, self._gate)


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, gate: Gate, host: str, **how: Any) -> None:
        super().__init__(host, **how)
        self._gate = gate

    def connect(self) -> None:
        _connect(self, super().connect, self._gate)


def _connect(connection: http.client.HTTPConnection, connect: Any, gate: Gate) -> None:
    whole: float = connection.timeout or _CONNECT_SECONDS_MAX
    connection.timeout = min(_CONNECT_SECONDS_MAX, whole / 2)
    try:
        connect()
    except OSError as error:
        raise NotReached(f"no connection: {_class_of(error)}") from None
    connection.sock.settimeout(whole)
    gate.enter()


def _class_of(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    return type(cause).__name__


def _person(text: str) -> Mapping[str, str]:
    name, address = parseaddr(text)
    return {"email": address, "name": name} if name else {"email": address}


def _text(each: Mapping[str, object], key: str) -> str:
    text = str(each.get(key) or "")
    return "" if text == "null" else text
