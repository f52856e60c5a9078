"""Text messages through Twilio's SDK: one client a thread, no second try by anybody, and a look-up of what was lost."""

from __future__ import annotations

import logging
import re
import ssl
import threading
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlencode

import requests
from requests.adapters import HTTPAdapter
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from activities.ports import Handed, NotTaken, Rejected, Sms, Taken, Unsure
from activities.vendors.calls import Gate, NotReached, Overdue, Threads, count, retry_after_seconds
from kit.clock import now
from kit.receipts import TWILIO_ATTEMPT, TWILIO_ERRORS, twilio_standing
from kit.redaction import in_words
from kit.sending import TwilioAccount
from kit.shallow import is_too_deep

_CONNECT_SECONDS_MAX = 5.0
_TOO_MANY, _REQUEST_TIMEOUT, _SERVER_ERROR = 429, 408, 500
_VALIDITY_SECONDS = (1, 36_000)
_PAGE_SIZE, _PAGES_MAX = 100, 5
#: Its times are whole seconds, and clocks differ by a little beyond what its answer shows.
_SLACK = timedelta(seconds=5)

_T = TypeVar("_T")

_log = logging.getLogger(__name__)
# It writes addresses with account and telephone numbers.
logging.getLogger("twilio").setLevel(logging.WARNING)
logging.getLogger("urllib3").setLevel(logging.WARNING)


class TwilioSms:
    """``SmsSender`` over ``Messages``. There is no idempotency key: what became of a message whose answer was lost, its
    list says."""

    def __init__(self, account: TwilioAccount) -> None:
        self._account = account
        service = account.sender.startswith("MG")
        self._from = {"messaging_service_sid" if service else "from_": account.sender}
        self._settle = timedelta(seconds=account.settle_seconds)
        self._threads = Threads(self.name, account.threads, account.timeout_seconds)
        self._local = threading.local()
        self._wires: list[_Wire] = []

    @property
    def name(self) -> str:
        """The vendor."""
        return "twilio"

    async def send(self, sms: Sms) -> Handed:
        """Hand it over once; see ``SmsSender``. Taken means queued there."""
        gate = Gate()
        try:
            handed = await self._threads.call(partial(self._send, sms, gate))
        except NotReached as error:
            # Where the gate was passed, the connection that failed was the one that it was passed for.
            handed = NotTaken(str(error))
        except Overdue as error:
            handed = NotTaken(str(error)) if gate.close() else Unsure(str(error))
        return count(self.name, handed)

    async def find(self, sms: Sms, since: datetime) -> Handed:
        """Look it up; see ``SmsSender``. What Twilio took and then failed to send is ``Rejected``."""
        try:
            return await self._threads.call(partial(self._find, sms, since))
        except (NotReached, Overdue) as error:
            return Unsure(f"looked up: {error}")

    async def close(self) -> None:
        """Let go of the threads and their connections."""
        await self._threads.close()
        self._local = threading.local()
        while self._wires:
            self._wires.pop().close()

    def _send(self, sms: Sms, gate: Gate) -> Handed:
        """In a thread: one request and its answer."""
        client, wire = self._client()
        wire.gate = gate
        how: dict[str, Any] = dict(self._from)
        if self._account.report_to is not None:
            how["status_callback"] = f"{self._account.report_to}?{urlencode({TWILIO_ATTEMPT: str(sms.attempt_id)})}"
        least, most = _VALIDITY_SECONDS
        try:
            message = client.messages.create(
                to=sms.to, body=sms.text, validity_period=min(max(sms.useful_seconds, least), most), **how
            )
        except TwilioException as error:
            return self._refused(error, wire)
        except (requests.RequestException, OSError) as error:
            words = f"no answer: {type(error).__name__}"
            return NotTaken(words) if gate.close() else Unsure(words)
        except _Unreadable as error:
            return Unsure(str(error))
        except (ValueError, TypeError, KeyError, AttributeError):
            if gate.close():
                raise
            return Unsure("an answer that cannot be read")
        return _as_it_is(message)

    def _refused(self, error: TwilioException, wire: _Wire) -> Handed:
        if not isinstance(error, TwilioRestException | TwilioServiceException):
            return Unsure(self._words(error))
        status, words = error.status, self._words(error)
        if status == _TOO_MANY:
            return NotTaken(words, retry_after_seconds(wire.headers))
        if status >= _SERVER_ERROR or status == _REQUEST_TIMEOUT:
            return Unsure(words)
        _log.error("Twilio refuses a message", extra={"status": status, "code": error.code, "reason": words})
        return Rejected(str(error.code or status), words)

    def _words(self, error: TwilioException) -> str:
        """What it says is wrong. The exception's own text holds the address, and so the account."""
        if isinstance(error, TwilioServiceException):
            told, status = error.detail or error.title, error.status
        elif isinstance(error, TwilioRestException):
            told, status = error.msg.partition(": ")[2], error.status
        else:
            return "an answer that is no answer"
        told = TWILIO_ERRORS.get(str(error.code), told)
        words = in_words(str(told), [self._account.secret, self._account.user, self._account.account_sid])
        return f"HTTP {status}, error {error.code}: {words}".removesuffix(": ")

    def _find(self, sms: Sms, since: datetime) -> Handed:
        """In a thread: page through what was sent to the number, newest first, until before the attempt."""
        client, wire = self._client()
        wire.gate = None
        unreadable = False
        try:
            for message in _newest_first(client, sms.to):
                # Their list is dated by their clock.
                if message.date_created < since + wire.ahead - _SLACK:
                    break
                if not str(message.direction).startswith("outbound"):
                    continue
                if not message.body:
                    unreadable = True
                elif _same(message.body, sms.text):
                    return _as_it_is(message)
        except _Unreadable as error:
            return Unsure(f"looked up: {error}")
        except TwilioException as error:
            return Unsure(f"looked up: {self._words(error)}")
        except (requests.RequestException, OSError) as error:
            return Unsure(f"looked up: no answer: {type(error).__name__}")
        if unreadable:
            return Unsure("looked up: its text is gone there, so that it cannot be told from others")
        if now() - since < self._settle:
            return Unsure("looked up: it is not there yet")
        return NotTaken("looked up: it is not there")

    def _client(self) -> tuple[Client, _Wire]:
        """This thread's own."""
        if not hasattr(self._local, "client"):
            account = self._account
            wire = _Wire(account.timeout_seconds)
            self._wires.append(wire)
            http = TwilioHttpClient(timeout=account.timeout_seconds)
            http.session.mount("https://", wire)
            http.session.mount("http://", wire)
            # Without an environment of its own it would take a region from ours, and another host with it.
            client = Client(account.user, account.secret, account.account_sid, http_client=http, environment={"-": "-"})
            client.api.base_url = account.url
            self._local.client, self._local.wire = client, wire
        return self._local.client, self._local.wire


class _Unreadable(Exception):
    """An answer cannot be read, or a list not to where it is of interest; the text says why."""


class _Wire(HTTPAdapter):
    """What the SDK's session sends through: it tells connecting from sending, and keeps the headers of the answer."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(max_retries=0)
        self._timeout = (min(_CONNECT_SECONDS_MAX, timeout_seconds / 2), timeout_seconds)
        self.gate: Gate | None = None
        self.headers: Any = {}
        self.ahead = timedelta()

    def send(self, request: requests.PreparedRequest, *args: Any, **how: Any) -> requests.Response:
        self.headers = {}
        if self.gate is not None:
            self.gate.enter()
        try:
            response = super().send(request, *args, **{**how, "timeout": self._timeout})
        except requests.ConnectionError as error:
            if (cause := _unreached(error)) is not None:
                raise NotReached(f"no connection: {cause}") from None
            raise
        if is_too_deep(response.text):
            # The SDK would read it.
            raise _Unreadable("an answer that cannot be read")
        self.headers = response.headers
        self.ahead = _ahead(response)
        return response


def _unreached(error: BaseException) -> str | None:
    """The class of what kept the connection from being made; None where the request may have left."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if isinstance(each, NewConnectionError | ConnectTimeoutError | ssl.SSLCertVerificationError):
            return type(each).__name__
        if id(each) not in seen:
            seen.add(id(each))
            causes = [*each.args, getattr(each, "reason", None), each.__cause__]
            waiting += [cause for cause in causes if isinstance(cause, BaseException)]
    return None


def _newest_first(client: Client, to: str) -> Iterator[Any]:
    # Not by the day of sending: what waits there has none yet.
    page = _read(partial(client.messages.page, to=to, page_size=_PAGE_SIZE))
    for _ in range(_PAGES_MAX):
        messages = _read(partial(list[Any], page))
        if any(message.date_created is None for message in messages):
            raise _Unreadable("messages without their time")
        yield from messages
        if (following := page.next_page_url) is None:
            return
        page = _read(partial(client.messages.get_page, following))
    raise _Unreadable("too many messages to this number")


def _read(call: Callable[[], _T]) -> _T:
    """What the SDK makes of an answer; it knows no error of its own for one that is not as described."""
    try:
        return call()
    except requests.RequestException:
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _Unreadable("an answer that cannot be read") from None


def _ahead(response: requests.Response) -> timedelta:
    """By how much their clock is ahead of ours, or less: the answer took a while."""
    try:
        return parsedate_to_datetime(response.headers.get("Date", "")).astimezone(UTC) - now()
    except (TypeError, ValueError):
        return timedelta()


def _as_it_is(message: Any) -> Handed:
    """A message that Twilio has, as what became of handing it over."""
    status, code = str(message.status), message.error_code
    standing = twilio_standing(status)
    if standing == "undelivered":
        words = TWILIO_ERRORS.get(str(code), in_words(message.error_message or "")) or "no reason given"
        return Rejected(str(code or status), f"{status}: {words}")
    if not message.sid:
        return Unsure("an answer without a message")
    return Taken(str(message.sid), status, delivered=standing == "delivered")


def _same(found: str, sent: str) -> bool:
    """Whether a text is ours: a trial account puts words before it, and marks may be replaced by plainer ones."""
    letters = _letters(sent)
    return _letters(found).endswith(letters) if letters else found.endswith(sent)


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", text)).casefold()
