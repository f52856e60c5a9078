"""Whose turn it is in a lane: what was claimed and not sent yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from activities.webhooks.loading import Loaded
from db.webhooks.sending import Claimed


@dataclass(frozen=True, slots=True)
class Ready:
    """A claimed delivery, with the endpoint as it was when it was claimed."""

    claimed: Claimed
    to: Loaded


class AnyOrder:
    """First come, first sent."""

    def __init__(self) -> None:
        self._queue: deque[Ready] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, ready: Sequence[Ready]) -> None:
        """Claimed, in the order of writing."""
        self._queue.extend(ready)

    def pop(self) -> Ready | None:
        """Whose turn it is, None when it is nobody's."""
        return self._queue.popleft() if self._queue else None

    def done(self, ready: Ready, *, delivered: bool) -> Sequence[Ready]:  # noqa: ARG002 - as with an order
        """One that was popped has ended; answers those that may not be sent now because of it."""
        return ()

    def drain(self) -> list[Ready]:
        """Everything that was not popped."""
        left = list(self._queue)
        self._queue.clear()
        return left


class SubjectOrder:
    """Those of one subject one after the other; when one is not delivered, none behind it is sent."""

    def __init__(self) -> None:
        self._behind: dict[str, deque[Ready]] = {}
        self._free: deque[str] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, ready: Sequence[Ready]) -> None:
        """Claimed, in the order of writing."""
        for one in ready:
            subject = one.claimed.subject
            if subject not in self._behind:
                self._behind[subject] = deque()
                self._free.append(subject)
            self._behind[subject].append(one)
        self._count += len(ready)

    def pop(self) -> Ready | None:
        """Whose turn it is, None when it is nobody's."""
        if not self._free:
            return None
        self._count -= 1
        return self._behind[self._free.popleft()].popleft()

    def done(self, ready: Ready, *, delivered: bool) -> Sequence[Ready]:
        """One that was popped has ended; answers those that may not be sent now because of it."""
        subject = ready.claimed.subject
        behind = self._behind[subject]
        if delivered and behind:
            self._free.append(subject)
            return ()
        del self._behind[subject]
        self._count -= len(behind)
        return list(behind)

    def drain(self) -> list[Ready]:
        """Everything that was not popped. Who is under way keeps its subject until it is done."""
        left = [one for behind in self._behind.values() for one in behind]
        for subject in self._free:
            del self._behind[subject]
        for behind in self._behind.values():
            behind.clear()
        self._free.clear()
        self._count = 0
        return left
