"""What goes wrong at a vendor, once each and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.vendors.server import Reply


@dataclass(frozen=True, slots=True)
class Fault:
    """One request ends so. ``acts``: what it asked for is done all the same."""

    status: int = 500
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    acts: bool = False
    silent: bool = False
    reset: bool = False
    hang: bool = False

    def reply(self) -> Reply:
        return Reply(self.body, self.status, dict(self.headers), hang=self.hang, silent=self.silent, reset=self.reset)


class Faults:
    """Those that the next requests will meet."""

    def __init__(self) -> None:
        self._waiting: deque[Fault] = deque()

    def add(self, *faults: Fault) -> None:
        self._waiting.extend(faults)

    def next(self) -> Fault | None:
        return self._waiting.popleft() if self._waiting else None
