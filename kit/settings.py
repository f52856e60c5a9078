"""Settings, read from the environment once at start-up. Only ``worker.py``, ``api/`` and ``tools/`` read them."""

from __future__ import annotations

import ssl
import sys
from email.utils import parseaddr
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from kit.receipts import sendgrid_key
from kit.sending import THREADS, TWILIO_RECEIPTS, SendGridAccount, TwilioAccount
from kit.signing import KeyUnusable

EXIT_CONFIGURATION = 2


class ServerSettings(BaseSettings):
    """What every process of ours needs. Neither server has a default: there is no silent fallback."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    database_url: str = Field(description="PostgreSQL, as postgresql://user:password@host:port/database")
    temporal_address: str = Field(description="The Temporal frontend, as host:port")
    temporal_namespace: str = "default"
    temporal_task_queue: str = "holdfast"
    database_pool_size: int = Field(default=20, ge=1, le=200)
    outward_allow: str = Field(
        default="",
        description="hosts and networks, with commas between, to which webhooks may lead though they are not public",
    )
    chains_file: Path | None = Field(
        default=None, description="Which chains can be followed, and through whom; see docs/chain.md"
    )
    log_format: str = Field(default="json", pattern="^(json|console)$")
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @field_validator("database_url")
    @classmethod
    def _postgres_only(cls, value: str) -> str:
        if not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("must be a postgresql:// URL; no other database is supported")
        return value

    @field_validator("temporal_address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError("must be host:port")
        return value


class PublicSettings(ServerSettings):
    """How the world reaches the API: in links that people follow, and in the addresses that vendors report to."""

    public_url: str = Field(
        default="http://127.0.0.1:8080", description="The API as seen from outside, without a path of ours behind it"
    )
    sms_twilio_auth_token: SecretStr | None = Field(
        default=None, description="Of the account; it signs what Twilio sends to us"
    )

    @field_validator("public_url")
    @classmethod
    def _public(cls, value: str) -> str:
        return _web_address(value)


class ApiSettings(PublicSettings):
    """The API process."""

    mail_sendgrid_receipt_key: str | None = Field(
        default=None, description="SendGrid's public key of signed events; without it none is taken"
    )

    @field_validator("mail_sendgrid_receipt_key")
    @classmethod
    def _event_key(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                sendgrid_key(value)
            except KeyUnusable as error:
                raise ValueError(str(error)) from None
        return value

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8080, ge=0, le=65535, description="0 takes any free port and logs it")
    api_streams_max: int = Field(default=500, ge=1, le=20_000, description="event streams that a process keeps open")
    api_streams_per_tenant_max: int = Field(default=100, ge=1, le=20_000, description="and of these, for one tenant")


class WorkerSettings(PublicSettings):
    """The worker process."""

    holdfast_build_id: str | None = Field(default=None, description="defaults to a hash of the source workers run")
    worker_health_host: str = "127.0.0.1"
    worker_health_port: int = Field(default=0, ge=0, le=65535, description="0 serves no health endpoint")
    nats_url: str | None = Field(
        default=None, description="nats:// or tls:// URLs with commas between; none: no broker"
    )
    nats_stream: str = Field(default="HOLDFAST", pattern="^[A-Za-z0-9_-]{1,200}$")
    nats_subject_prefix: str = Field(default="holdfast", pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=100)
    nats_duplicate_window_seconds: int = Field(default=120, ge=1, le=86_400, description="of a stream that is made")
    nats_ca_file: Path | None = Field(default=None, description="certificates that the broker's is checked against")

    @field_validator("nats_url")
    @classmethod
    def _broker_urls(cls, value: str | None) -> str | None:
        for url in (value or "nats://nowhere").split(","):
            try:
                parts = urlsplit(url.strip())
                fine = parts.scheme in ("nats", "tls") and parts.hostname and (parts.port is None or parts.port > 0)
            except ValueError:
                fine = False
            if not fine:
                raise ValueError("must be nats://host:port or tls://host:port, several with commas between")
        return value

    @field_validator("nats_ca_file")
    @classmethod
    def _certificates(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.create_default_context(cafile=value)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(f"must name a file of certificates: {error}") from None
        return value

    book_groups: int = Field(
        default=4, ge=1, le=64, description="parts of the margin book that are revalued beside one another"
    )
    prices_file: Path | None = Field(default=None, description="Where prices come from; see docs/prices.md")
    prices_manual_file: Path | None = Field(
        default=None, description="An operator's prices; the only source where PRICES_FILE is not set"
    )

    seal_key_file: Path = Field(description="The Ed25519 key (PEM) that signs checkpoints; the same for every worker")
    seal_old_public_keys: str = Field(default="", description="Files (PEM, by colons) of keys that signed before")
    checkpoint_dir: Path = Field(description="Where signed checkpoints are kept outside the database")
    seal_origin: str = Field(
        default="holdfast", pattern=r"^[^\s+]+$", description="The name of this house in its checkpoints"
    )
    checkpoint_seconds: float = Field(default=60, ge=1, le=86_400)

    mail_sendgrid_api_key: SecretStr | None = Field(
        default=None, description="With it mail goes out through SendGrid, without it into the local mailbox"
    )
    mail_sendgrid_url: str = Field(default="https://api.sendgrid.com", description="https://api.eu.sendgrid.com for EU")
    mail_from: str | None = Field(
        default=None, validate_default=True, description="Name <address>, verified at SendGrid; needed with its key"
    )
    mail_reply_to: str | None = Field(default=None, description="Where answers to mails go, if not to MAIL_FROM")
    mail_timeout_seconds: float = Field(default=8, ge=1, le=8)
    mail_threads: int = Field(default=THREADS, ge=1, le=64, description="mails that are handed over at a time")

    sms_twilio_account_sid: str | None = Field(
        default=None,
        pattern="^AC[0-9a-fA-F]{32}$",
        description="With it text messages go out through Twilio, without it into the local mailbox",
    )
    sms_twilio_key_sid: str | None = Field(default=None, pattern="^SK[0-9a-fA-F]{32}$", description="An API key")
    sms_twilio_key_secret: SecretStr | None = Field(
        default=None, validate_default=True, description="Of that key; else the account's token is used"
    )
    sms_twilio_url: str = "https://api.twilio.com"
    sms_from: str | None = Field(
        default=None,
        validate_default=True,
        pattern=r"^(\+[1-9][0-9]{4,14}|MG[0-9a-fA-F]{32})$",
        description="A number of the account or a messaging service; needed with the account",
    )
    sms_timeout_seconds: float = Field(default=8, ge=1, le=8)
    sms_threads: int = Field(default=THREADS, ge=1, le=64, description="messages that are handed over at a time")

    @field_validator("mail_sendgrid_api_key")
    @classmethod
    def _one_word(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else value.get_secret_value()
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("must be one word of plain letters")
        return value

    @field_validator("mail_sendgrid_url", "sms_twilio_url")
    @classmethod
    def _vendor_url(cls, value: str) -> str:
        value = _web_address(value)
        if not value.startswith("https://") and urlsplit(value).hostname not in _LOOPBACK:
            raise ValueError("must be an https:// URL, for a key goes there")
        return value

    @field_validator("mail_from")
    @classmethod
    def _sender(cls, value: str | None, others: ValidationInfo) -> str | None:
        if value is None and others.data.get("mail_sendgrid_api_key") is not None:
            raise ValueError("must be set where MAIL_SENDGRID_API_KEY is")
        _reachable(others, "mail_sendgrid_api_key", "mail_sendgrid_url")
        return _mail_address(value)

    @field_validator("mail_reply_to")
    @classmethod
    def _reply_to(cls, value: str | None) -> str | None:
        return _mail_address(value)

    @field_validator("sms_twilio_key_secret")
    @classmethod
    def _credentials(cls, value: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        given = others.data
        if value is None and given.get("sms_twilio_key_sid") is not None:
            raise ValueError("must be set where SMS_TWILIO_KEY_SID is")
        if value is not None and given.get("sms_twilio_key_sid") is None:
            raise ValueError("is of no use without SMS_TWILIO_KEY_SID")
        if value is None and given.get("sms_twilio_account_sid") and given.get("sms_twilio_auth_token") is None:
            raise ValueError("or SMS_TWILIO_AUTH_TOKEN must be set where SMS_TWILIO_ACCOUNT_SID is")
        return value

    @field_validator("sms_from")
    @classmethod
    def _number(cls, value: str | None, others: ValidationInfo) -> str | None:
        if value is None and others.data.get("sms_twilio_account_sid") is not None:
            raise ValueError("must be set where SMS_TWILIO_ACCOUNT_SID is")
        _reachable(others, "sms_twilio_account_sid", "sms_twilio_url")
        return value

    @property
    def sendgrid(self) -> SendGridAccount | None:
        """The account that mail goes through, if there is one."""
        if self.mail_sendgrid_api_key is None or self.mail_from is None:
            return None
        return SendGridAccount(
            api_key=self.mail_sendgrid_api_key.get_secret_value(),
            sender=self.mail_from,
            reply_to=self.mail_reply_to,
            url=self.mail_sendgrid_url,
            timeout_seconds=self.mail_timeout_seconds,
            threads=self.mail_threads,
        )

    @property
    def twilio(self) -> TwilioAccount | None:
        """The account that text messages go through, if there is one."""
        secret = self.sms_twilio_key_secret or self.sms_twilio_auth_token
        if self.sms_twilio_account_sid is None or self.sms_from is None or secret is None:
            return None
        return TwilioAccount(
            account_sid=self.sms_twilio_account_sid,
            user=self.sms_twilio_key_sid or self.sms_twilio_account_sid,
            secret=secret.get_secret_value(),
            sender=self.sms_from,
            report_to=self.public_url + TWILIO_RECEIPTS,
            url=self.sms_twilio_url,
            timeout_seconds=self.sms_timeout_seconds,
            threads=self.sms_threads,
        )


_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _web_address(value: str) -> str:
    """An http:// or https:// URL without query and the like, and without a slash at its end."""
    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be an http:// or https:// URL without user, query or fragment")
    return value.rstrip("/")


def _reachable(others: ValidationInfo, key: str, vendor: str) -> None:
    """A vendor outside must be able to report, and its recipients to follow a link."""
    given = others.data
    outside = given.get(key) is not None and urlsplit(given.get(vendor, "")).hostname not in _LOOPBACK
    if outside and urlsplit(given.get("public_url", "")).hostname in _LOOPBACK:
        raise ValueError("needs PUBLIC_URL: links and receipts lead there")


def _mail_address(value: str | None) -> str | None:
    if value is not None:
        local, _, domain = parseaddr(value)[1].rpartition("@")
        if not local or not domain or not value.isprintable():
            raise ValueError("must be an address, or Name <address>")
    return value


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load(settings: type[SettingsT]) -> SettingsT:
    """The settings from the environment; exits with status 2 and one line per variable at fault."""
    try:
        return settings()
    except ValidationError as error:
        for fault in error.errors():
            name = "_".join(str(part) for part in fault["loc"]).upper()
            reason = "is not set" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
            print(f"configuration: {name} {reason}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_CONFIGURATION) from None
