"""The file that says where prices come from: sources with their feeds and limits, and what each asset's price needs.

TOML, read once at start-up. Keys and addresses that hold one come from environment variables that the file names.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

_PRICE = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,18})?\Z")


class PricesUnusable(Exception):
    """The file cannot be used; the message names the key at fault."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL")
    return value.rstrip("/")


def _price(value: object) -> object:
    text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    if isinstance(value, bool) or not _PRICE.match(text):
        raise ValueError("must be dollars, a positive decimal with at most 18 places")
    return Decimal(text)


Url = Annotated[str, AfterValidator(_url)]
Dollars = Annotated[Decimal, BeforeValidator(_price), Field(gt=0)]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
Symbol = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,19}$")]


class Feed(_Part):
    """One asset at one source. A bare text in the file is its ``id``."""

    id: str = Field(min_length=1, max_length=200)
    unit: Symbol = "USD"
    max_age_seconds: int | None = Field(default=None, ge=1, le=31_536_000)

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value


class ChainlinkFeed(_Part):
    """One Chainlink aggregator, by its proxy's address. Heartbeats differ by feed and by chain: there is no default."""

    address: str = Field(pattern=r"^0x[0-9a-fA-F]{40}$")
    decimals: int = Field(ge=0, le=36)
    heartbeat_seconds: int = Field(ge=1, le=31_536_000)
    buffer_seconds: Seconds = 60
    unit: Symbol = "USD"
    min: Dollars | None = None
    max: Dollars | None = None


class _Source(_Part):
    timeout_seconds: float = Field(default=5.0, gt=0, le=15)
    max_body_bytes: int = Field(default=1_000_000, ge=1_000, le=50_000_000)
    calls_per_minute: int = Field(default=20, ge=1, le=10_000)
    spacing_seconds: float = Field(default=2.0, ge=0, le=3_600, description="asked again sooner, it answers as before")
    breaker_failures: int = Field(default=5, ge=1, le=1_000)
    breaker_seconds: float = Field(default=60.0, gt=0, le=86_400)


class CoinGecko(_Source):
    """CoinGecko's ``/simple/price``."""

    kind: Literal["coingecko"]
    base_url: Url = "https://api.coingecko.com/api/v3"
    key_env: str | None = None
    key_header: str = Field(default="x-cg-demo-api-key", pattern=r"^[A-Za-z0-9-]{1,60}$")
    max_age_seconds: int = Field(default=300, ge=1, le=86_400)
    feeds: dict[Symbol, Feed] = Field(min_length=1)


class Chainlink(_Source):
    """Chainlink aggregators over JSON-RPC, and where the chain is a rollup its sequencer's uptime feed."""

    kind: Literal["chainlink"]
    url: Url | None = None
    url_env: str | None = None
    chain_id: int = Field(default=1, ge=1)
    calls_per_minute: int = Field(default=120, ge=1, le=10_000)
    sequencer: str | None = Field(default=None, pattern=r"^0x[0-9a-fA-F]{40}$")
    sequencer_grace_seconds: Seconds = 3_600
    feeds: dict[Symbol, ChainlinkFeed] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_address(self) -> Chainlink:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("names its node by url, or by url_env where the address holds a key")
        return self


class Pyth(_Source):
    """Pyth's Hermes."""

    kind: Literal["pyth"]
    base_url: Url = "https://hermes.pyth.network"
    key_env: str | None = None
    max_age_seconds: int = Field(default=60, ge=1, le=86_400)
    feeds: dict[Symbol, Feed] = Field(min_length=1)


class Exchange(_Source):
    """An exchange's tickers through ccxt; a feed's ``id`` is the market as ccxt writes it, its quote the unit."""

    kind: Literal["exchange"]
    exchange: str = Field(pattern=r"^[a-z][a-z0-9_]{1,40}$")
    base_url: Url | None = Field(default=None, description="instead of the exchange's own host")
    options: dict[str, Any] = Field(default_factory=dict, description="ccxt's options of this exchange")
    timeout_seconds: float = Field(default=10.0, gt=0, le=15)
    max_body_bytes: int = Field(default=30_000_000, ge=1_000, le=50_000_000, description="lists of markets are long")
    max_age_seconds: int = Field(default=60, ge=1, le=86_400)
    feeds: dict[Symbol, Feed] = Field(min_length=1)


class ManualFile(_Source):
    """A file of prices that an operator vouches for. An entry with ``at`` ages from then, others never."""

    kind: Literal["file"]
    path: Path
    spacing_seconds: float = Field(default=0.0, ge=0, le=3_600)
    calls_per_minute: int = Field(default=10_000, ge=1, le=10_000)
    max_age_seconds: int = Field(default=86_400, ge=1, le=31_536_000)
    feeds: dict[Symbol, Feed] | None = Field(default=None, description="leave it out for all that the file holds")


SourceConfig = Annotated[CoinGecko | Chainlink | Pyth | Exchange | ManualFile, Field(discriminator="kind")]


class AssetConfig(_Part):
    """What one asset's price needs; what is left out comes from ``[defaults]``, then from the rules."""

    quorum: int | None = Field(default=None, ge=1, le=50)
    band_bps: int | None = Field(default=None, ge=1, le=10_000)
    min: Dollars | None = None
    max: Dollars | None = None
    max_confidence_bps: int | None = Field(default=None, ge=1, le=10_000)
    jump_bps: int | None = Field(default=None, ge=1, le=1_000_000)
    persistence: int | None = Field(default=None, ge=1, le=1_000)
    persistence_seconds: Seconds | None = None
    max_age_seconds: int | None = Field(default=None, ge=1, le=86_400)
    ttl_seconds: int | None = Field(default=None, ge=0, le=3_600)


class PricesConfig(_Part):
    """The whole file."""

    sources: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")], SourceConfig] = Field(default_factory=dict)
    assets: dict[Symbol, AssetConfig] = Field(default_factory=dict)
    defaults: AssetConfig = AssetConfig()

    @model_validator(mode="after")
    def _quorums(self) -> PricesConfig:
        """An asset whose quorum more sources would be needed for than it has could never have a price."""
        if any(isinstance(source, ManualFile) and source.feeds is None for source in self.sources.values()):
            return self
        for symbol, wanted in self.assets.items():
            offered = sum(symbol in (source.feeds or {}) for source in self.sources.values())
            if wanted.quorum is not None and wanted.quorum > offered:
                raise ValueError(f"assets.{symbol}.quorum is {wanted.quorum}, and {offered} sources have it")
        return self

    def policy(self, symbol: str) -> dict[str, Any]:
        """What is said of an asset, the defaults under it."""
        own = self.assets.get(symbol, AssetConfig()).model_dump(exclude_none=True)
        return self.defaults.model_dump(exclude_none=True) | own


def read_prices(file: Path) -> PricesConfig:
    """The file's configuration; raises ``PricesUnusable``."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, UnicodeDecodeError) as error:
        raise PricesUnusable(f"{file}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise PricesUnusable(f"{file} is no TOML: {error}") from None
    try:
        found = PricesConfig.model_validate(content)
    except ValidationError as error:
        raise PricesUnusable("; ".join(_told(file, fault) for fault in error.errors()[:5])) from None
    return _beside(file, found)


def manual_only(file: Path) -> PricesConfig:
    """Prices from one file of an operator's, and nothing else."""
    return PricesConfig(sources={"manual": ManualFile(kind="file", path=file)})


def secret(name: str | None, key: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The value of the environment variable ``name`` that ``key`` of the file names; raises ``PricesUnusable``."""
    if name is None:
        return None
    value = (os.environ if environment is None else environment).get(name, "").strip()
    if not value:
        raise PricesUnusable(f"{key} names the environment variable {name}, which is not set")
    return value


def _beside(file: Path, found: PricesConfig) -> PricesConfig:
    """A manual file is named from where the configuration lies."""
    sources = {
        name: source.model_copy(update={"path": file.parent / source.path})
        if isinstance(source, ManualFile)
        else source
        for name, source in found.sources.items()
    }
    return found.model_copy(update={"sources": sources})


def _told(file: Path, fault: Any) -> str:
    kinds = {"coingecko", "chainlink", "pyth", "exchange", "file"}
    where = ".".join(str(part) for place, part in enumerate(fault["loc"]) if not (place == 2 and part in kinds))
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{file}: {where}: {message}" if where else f"{file}: {message}"
