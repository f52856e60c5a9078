"""A contract's own word about its money, against its events and against the ledger that mirrors them.

What can be explained is told apart from what cannot: only the latter is a reason to wake somebody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from domain.chain.model import Books


@dataclass(frozen=True, slots=True)
class Money:
    """Held for escrows, and owed to accounts, in the token's smallest unit; may be a difference."""

    held: int = 0
    owed: int = 0

    def minus(self, other: Money) -> Money:
        """The difference."""
        return Money(self.held - other.held, self.owed - other.owed)


@dataclass(frozen=True, slots=True)
class Figures:
    """One token of one contract: its own word as of a block, and what was read here in one snapshot.

    ``events`` counts those up to ``books.sequence`` that are here, and ``told`` is what they say. Of these, ``waiting``
    is not settled yet, ``unsupported`` is of what the desk does not keep, and ``disagreeing`` is what the rules would
    not have done; ``ahead`` is settled and behind that block. ``booked`` is what settled events should have left in the
    ledger less what is there: ``under_way`` of escrows and accounts that have events waiting, ``wrong`` of the others.
    ``outside`` is what the ledger says came in from this contract less what it has of it.
    """

    books: Books
    events: int
    told: Money
    waiting: Money
    ahead: Money
    unsupported: Money
    disagreeing: Money
    under_way: Money
    wrong: Money
    ledger: Money
    outside: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the difference, in the token's smallest unit. ``code`` says why, and is for ever; ``explained`` that it
    is no cause for alarm."""

    code: str
    what: str
    amount: int
    explained: bool


def compare(figures: Figures) -> tuple[Part, ...]:
    """Everything in which the contract, its events and the ledger differ; empty where they agree to the last unit."""
    return tuple(part for part in _parts(figures) if part.amount)


def explained(parts: tuple[Part, ...]) -> int:
    """How much differs for a known reason."""
    return sum(abs(part.amount) for part in parts if part.explained)


def unexplained(parts: tuple[Part, ...]) -> int:
    """How much differs, and nobody knows why."""
    return sum(abs(part.amount) for part in parts if not part.explained)


def _parts(figures: Figures) -> Iterator[Part]:
    books = figures.books
    over = books.balance - books.held - books.owed
    yield Part("forced_in" if over > 0 else "contract_short", "balance", over, over > 0)
    missing = figures.events < books.sequence
    code = "events_missing" if missing else "events_differ"
    yield from _both(code, Money(books.held, books.owed).minus(figures.told), explained=missing)
    yield from _both("not_settled", figures.waiting.minus(figures.ahead), explained=True)
    yield from _both("unsupported", figures.unsupported, explained=True)
    yield from _both("disagreeing", figures.disagreeing, explained=False)
    yield from _both("under_way", figures.under_way, explained=True)
    yield from _both("ledger_differs", figures.wrong, explained=False)
    yield Part("mirror_differs", "outside", figures.outside, explained=False)


def _both(code: str, money: Money, *, explained: bool) -> Iterator[Part]:
    yield Part(code, "held", money.held, explained)
    yield Part(code, "owed", money.owed, explained)
