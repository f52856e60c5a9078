"""Settings, read from the environment once at start-up. Only ``worker.py``, ``api/`` and ``tools/`` read them."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

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


class ApiSettings(ServerSettings):
    """The API process."""

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8080, ge=0, le=65535, description="0 takes any free port and logs it")
    api_streams_max: int = Field(default=500, ge=1, le=20_000, description="event streams that a process keeps open")
    api_streams_per_tenant_max: int = Field(default=100, ge=1, le=20_000, description="and of these, for one tenant")


class WorkerSettings(ServerSettings):
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
