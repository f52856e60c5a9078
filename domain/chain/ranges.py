"""Sets of blocks as sorted, disjoint, inclusive ranges. Gaps are found by difference, never by counting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: First and last block, both included.
Range = tuple[int, int]
Ranges = tuple[Range, ...]


def union(*sets: Iterable[Range]) -> Ranges:
    """Every block of any of them; ranges that touch become one."""
    joined: list[Range] = []
    for first, last in sorted(each for one in sets for each in one):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)


def difference(wanted: Iterable[Range], covered: Iterable[Range]) -> Ranges:
    """The blocks of ``wanted`` that are not in ``covered``."""
    left: list[Range] = []
    holes = union(covered)
    for first, last in union(wanted):
        begin = first
        for hole_first, hole_last in holes:
            if hole_last < begin or hole_first > last:
                continue
            if hole_first > begin:
                left.append((begin, hole_first - 1))
            begin = hole_last + 1
        if begin <= last:
            left.append((begin, last))
    return tuple(left)


def intersection(one: Iterable[Range], other: Iterable[Range]) -> Ranges:
    """The blocks that are in both."""
    held = union(one)
    return difference(held, difference(held, other))


def count(ranges: Iterable[Range]) -> int:
    """How many blocks that is."""
    return sum(last - first + 1 for first, last in union(ranges))


def cut(ranges: Iterable[Range], blocks: int) -> Iterator[Range]:
    """The same blocks in pieces of at most ``blocks``, in order."""
    for first, last in union(ranges):
        for begin in range(first, last + 1, blocks):
            yield begin, min(begin + blocks - 1, last)
