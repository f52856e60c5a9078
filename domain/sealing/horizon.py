"""How far a stream may be sealed: up to keys below which nothing can appear any more."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(slots=True)
class Horizon:
    """Learns from looks at the stream; ``safe`` is the highest key up to which all that will ever be there is there.

    A look is the newest committed key and then, read after it, the transactions that may have rows under way. Keys are
    handed out in ascending order, so a row with a key up to ``newest`` belongs to one of these or is visible. When none
    of them is left, the whole of it is. A transaction that never ends holds the horizon where it is.
    """

    safe: int = 0
    _newest: int = 0
    _writers: AbstractSet[str] = frozenset()

    @property
    def waits(self) -> bool:
        """Whether there is a newer key that becomes safe when some transactions have ended."""
        return self._newest > self.safe

    def look(self, newest: int, writers: AbstractSet[str]) -> None:
        """Take in what was seen just now."""
        if self.waits and not self._writers & writers:
            self.safe = self._newest
        if not self.waits and newest > self.safe:
            self._newest, self._writers = newest, writers
            if not writers:
                self.safe = newest
