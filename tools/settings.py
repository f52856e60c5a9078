"""What the commands read from the environment, each only what it needs."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from kit.settings import load

__all__ = ["DatabaseSettings", "TemporalSettings", "load"]


class DatabaseSettings(BaseSettings):
    """A command that talks to Postgres alone."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    database_url: str = Field(pattern=r"^postgres(ql)?://", description="PostgreSQL, and nothing else")


class TemporalSettings(BaseSettings):
    """A command that talks to Temporal alone."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    temporal_address: str = Field(pattern=r"^.+:\d+$", description="The Temporal frontend, as host:port")
    temporal_namespace: str = "default"
    temporal_task_queue: str = "holdfast"
