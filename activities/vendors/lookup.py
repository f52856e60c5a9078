"""Names to addresses, by the system's resolver: bounded in time, and no host's slow name servers hold up another's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

LOOKUP_SECONDS = 5.0
#: The system's resolver holds a thread for as long as a name server is silent, half a minute perhaps.
THREADS = 64

#: A host to the texts of its addresses; blocking, and raising ``OSError`` for what it cannot find.
Lookup = Callable[[str], Sequence[str]]


class NamesUnknown(OSError):
    """A host has no address that can be found now."""


def system(host: str) -> Sequence[str]:
    """What the system's resolver answers, as it answers it."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # The fourth of an IPv6 address is its zone: such an address is link-local, and refused where its zone is named.
    return [str(where[0]) if len(where) < 4 or not where[3] else f"{where[0]}%{where[3]}" for *_, where in found]


class Names:
    """Looks hosts up; a host that is being looked up is not looked up beside that."""

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup or system
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: dict[str, Future[Sequence[str]]] = {}

    async def find(self, host: str) -> Sequence[str]:
        """The addresses of a host; raises ``NamesUnknown``."""
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                return await asyncio.shield(asyncio.wrap_future(self._asked(host)))
        except TimeoutError:
            raise NamesUnknown("its name was not found in time") from None
        except (OSError, UnicodeError):
            raise NamesUnknown("its name is not known") from None

    def close(self) -> None:
        """Let go of the threads; a later call makes others."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _asked(self, host: str) -> Future[Sequence[str]]:
        found = self._under_way.get(host)
        if found is None or found.done():
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="lookup")
            found = self._under_way[host] = self._pool.submit(self._lookup, host)
            found.add_done_callback(lambda ended: self._forget(host, ended))
        return found

    def _forget(self, host: str, ended: Future[Sequence[str]]) -> None:
        if self._under_way.get(host) is ended:
            self._under_way.pop(host, None)
