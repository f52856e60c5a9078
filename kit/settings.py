"""Settings, read from the environment once at start-up. Only ``worker.py``, ``api/`` and ``tools/`` read them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeVar

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


class WorkerSettings(ServerSettings):
    """The worker process."""

    holdfast_build_id: str | None = Field(default=None, description="defaults to a hash of the source workers run")
    worker_health_host: str = "127.0.0.1"
    worker_health_port: int = Field(default=0, ge=0, le=65535, description="0 serves no health endpoint")
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
