"""An endpoint as a lane sends to it: its address, its headers, and its keys ready to sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from activities.webhooks.outcomes import HIDDEN
from db.webhooks.sending import Endpoint, Keys
from kit.standardwebhooks import PrivateKey, SharedSecret, Signer, signed

USER_AGENT: Final = "Holdfast-Webhooks/1"
CONTENT_TYPE: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """An endpoint as it was read; ``read_at`` is the process's monotonic clock then."""

    endpoint: Endpoint
    keys: Sequence[Signer]
    read_at: float

    def headers(self, message_id: str, at: datetime, body: bytes) -> tuple[dict[str, str], Mapping[str, str]]:
        """The headers of a request, and as they may be shown: without what the owner's own say."""
        made = {"content-type": CONTENT_TYPE, **signed(message_id, at, body, self.keys)}
        own = self.endpoint.headers
        return {**own, **made}, {**dict.fromkeys(own, HIDDEN), **made}


def load(endpoint: Endpoint, read_at: float) -> Loaded:
    """``v1`` and ``v1a`` side by side, of every key in force."""
    return Loaded(endpoint, [signer for keys in endpoint.keys for signer in _signers(keys)], read_at)


@lru_cache(maxsize=2_048)
def _signers(keys: Keys) -> tuple[Signer, Signer]:
    """Made once: to set up an Ed25519 key costs more than to sign."""
    return SharedSecret(keys.shared_key), PrivateKey(keys.private_seed)
