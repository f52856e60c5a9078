"""The file that says which chains there are: their providers, when blocks are final, and what their tokens are here.

TOML, read once at start-up. Addresses of nodes that hold a key come from environment variables that the file names.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

#: The address that stands for a chain's own coin.
COIN = "0x" + 40 * "0"


class ChainsUnusable(Exception):
    """The file cannot be used; the message names the key at fault."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL")
    return value


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9._-]{0,19}$")]
Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$"), AfterValidator(str.lower)]


class Provider(_Part):
    """One node, or a vendor's door to many. Its URL may hold a user and a password (Bitcoin Core's way)."""

    name: Name
    url: Annotated[str, AfterValidator(_url)] | None = None
    url_env: str | None = Field(default=None, description="the environment variable that holds the URL")
    timeout_seconds: float = Field(default=10.0, gt=0, le=60)
    requests_per_second: float | None = Field(default=None, gt=0, le=100_000, description="shared by all processes")
    range_blocks_max: int = Field(default=10_000, ge=1, le=10_000_000, description="asked for at once; less is learned")
    max_body_bytes: int = Field(default=64_000_000, ge=10_000, le=1_000_000_000)

    @model_validator(mode="after")
    def _one_address(self) -> Provider:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("names its node by url, or by url_env where the address holds a key")
        return self

    def address(self, environment: Mapping[str, str] | None = None) -> str:
        """Where the node is; raises ``ChainsUnusable`` where the environment does not say."""
        if self.url is not None:
            return self.url
        value = (os.environ if environment is None else environment).get(self.url_env or "", "").strip()
        try:
            return _url(value)
        except ValueError as error:
            raise ChainsUnusable(f"{self.url_env}, which provider {self.name} names, {error}") from None


class Token(_Part):
    """What a token is called here, and its decimals, which must be the asset's scale."""

    asset: Symbol
    decimals: int = Field(ge=0, le=36)


class _Chain(_Part):
    providers: list[Provider] = Field(min_length=1)
    confirmations: int = Field(default=12, ge=0, le=100_000)
    finality_depth: int | None = Field(
        default=None, ge=0, le=100_000, description="blocks on top that make one final; without it the chain's own word"
    )
    poll_seconds: float = Field(default=1.0, ge=0.02, le=600)
    quorum: int | None = Field(
        default=None, ge=1, le=20, description="providers that must agree; else 1, or 2 where there are three"
    )
    lag_blocks_max: int = Field(
        default=20, ge=1, le=1_000_000, description="further behind, its relayers are unhealthy"
    )
    lag_seconds_max: int = Field(default=300, ge=1, le=1_000_000, description="without news, they are too")
    still_seconds_max: int | None = Field(
        default=None, ge=1, le=10_000_000, description="with a head older than this, they are too; unless set, any age"
    )

    @model_validator(mode="after")
    def _providers(self) -> _Chain:
        names = [provider.name for provider in self.providers]
        if len(set(names)) != len(names):
            raise ValueError("two providers have one name")
        if self.quorum is not None and self.quorum > len(names):
            raise ValueError(f"quorum is {self.quorum}, and there are {len(names)} providers")
        return self

    @property
    def agreeing(self) -> int:
        """How many providers must say the same."""
        return self.quorum or (2 if len(self.providers) >= 3 else 1)


class EvmChain(_Chain):
    """A chain of the EVM, by its chain id (EIP-155)."""

    kind: Literal["evm"]
    chain_id: int = Field(ge=1, le=2**63 - 1)
    tokens: dict[Address, Token] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _assets(self) -> EvmChain:
        # Books are compared by token, and an asset that were two of them could not tell which is short.
        assets = [token.asset for token in self.tokens.values()]
        if len(set(assets)) != len(assets):
            raise ValueError("two tokens are one asset")
        return self

    @property
    def network(self) -> str:
        """CAIP-2."""
        return f"eip155:{self.chain_id}"


class UtxoChain(_Chain):
    """A chain like Bitcoin's, by the hash of its first block; there is no finality but depth."""

    kind: Literal["utxo"]
    genesis_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    asset: Symbol
    finality_depth: int | None = Field(default=6, ge=0, le=100_000)
    confirmations: int = Field(default=2, ge=0, le=100_000)

    @property
    def network(self) -> str:
        """CAIP-2: the genesis' first 32 digits."""
        return f"bip122:{self.genesis_hash[:32]}"

    @model_validator(mode="after")
    def _depth(self) -> UtxoChain:
        if self.finality_depth is None:
            raise ValueError("finality_depth is needed: such a chain says of no block that it is final")
        return self


ChainConfig = Annotated[EvmChain | UtxoChain, Field(discriminator="kind")]


class ChainsConfig(_Part):
    """The whole file."""

    chains: dict[Name, ChainConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _networks(self) -> ChainsConfig:
        networks = [chain.network for chain in self.chains.values()]
        if len(set(networks)) != len(networks):
            raise ValueError("two chains are one and the same network")
        return self


def read_chains(file: Path) -> ChainsConfig:
    """The file's configuration; raises ``ChainsUnusable``."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ChainsUnusable(f"{file}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ChainsUnusable(f"{file} is no TOML: {error}") from None
    try:
        return ChainsConfig.model_validate(content)
    except ValidationError as error:
        raise ChainsUnusable("; ".join(_told(file, fault) for fault in error.errors()[:5])) from None


def _told(file: Path, fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"] if part not in ("evm", "utxo"))
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{file}: {where}: {message}" if where else f"{file}: {message}"
