"""Merkle trees as RFC 6962, section 2.1, defines them: SHA-256, leaves and nodes told apart by a first byte.

A tree over ``size`` leaves is described by its complete subtrees: a leaf ``n`` (counted from 0) ends those of the
levels 0, 1, … for which ``n + 1`` is a multiple of ``2 ** level``. Whoever keeps these hashes with each leaf finds the
root of any size and both kinds of proof from a handful of leaves, see ``Nodes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()

#: The hash of the complete subtree of ``2 ** level`` leaves that ends with leaf ``last``, given ``(level, last)``.
Nodes = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes; a node without a sibling moves up as it is."""
    level = list(leaves)
    while len(level) > 1:
        above = [sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0] if level else EMPTY_ROOT


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The siblings from leaf ``index`` up to the root."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"leaf {index} is not in a tree of {len(leaves)}")
    path: list[bytes] = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        above = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level, index = above, index >> 1
    return path


def root_of_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root of ``size`` leaves that a path leads to; None when the path has not the length that it must have."""
    if not 0 <= index < size:
        return None
    found, last = leaf, size - 1
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            found = node_hash(sibling, found)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        index, last = index >> 1, last >> 1
    return found if last == 0 else None


def consistent(old_size: int, old_root: bytes, size: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether ``path`` shows that the tree of ``size`` leaves begins with the one of ``old_size``."""
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not path and old_root == new_root
    hashes = list(path)
    if old_size & (old_size - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    index, last = old_size - 1, size - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if index & 1 or index == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        index, last = index >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


@dataclass(slots=True)
class Frontier:
    """The right edge of a growing tree: the complete subtrees that its size is made of, the largest first."""

    size: int
    hashes: list[bytes]

    @classmethod
    def empty(cls) -> Frontier:
        """Of a tree without leaves."""
        return cls(0, [])

    @classmethod
    def of(cls, size: int, nodes: Nodes) -> Frontier:
        """Of the first ``size`` leaves of a tree whose nodes are kept."""
        return cls(size, [nodes(level, last) for level, last in edge(size)])

    def append(self, leaf: bytes) -> list[bytes]:
        """Add a leaf hash; the hashes of the complete subtrees that end with it, from the leaf upwards."""
        made = [leaf]
        size = self.size
        while size & 1:
            made.append(node_hash(self.hashes.pop(), made[-1]))
            size >>= 1
        self.hashes.append(made[-1])
        self.size += 1
        return made

    def root(self) -> bytes:
        """The root over all leaves so far."""
        return _fold(self.hashes)


def edge(size: int) -> list[tuple[int, int]]:
    """The complete subtrees that ``size`` leaves are made of as ``(level, last leaf)``, the largest first."""
    return list(_cover(0, size))


def inclusion_nodes(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """The path of leaf ``index`` in the tree over the first ``size`` leaves, from kept nodes."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_root_between(middle, end, nodes))
            end = middle
        else:
            path.append(_root_between(begin, middle, nodes))
            begin = middle
    return path[::-1]


def consistency_nodes(old_size: int, size: int, nodes: Nodes) -> list[bytes]:
    """The proof that the tree of ``size`` leaves begins with the one of ``old_size``, from kept nodes."""
    if not 0 < old_size <= size:
        raise ValueError(f"a tree of {size} leaves does not begin with one of {old_size}")
    path: list[bytes] = []
    begin, end, whole = 0, size, True
    while old_size < end:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            path.append(_root_between(middle, end, nodes))
            end = middle
        else:
            path.append(_root_between(begin, middle, nodes))
            begin, whole = middle, False
    if not whole:
        path.append(_root_between(begin, end, nodes))
    return path[::-1]


def _split(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1


def _cover(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Complete subtrees over the leaves from ``begin`` to before ``end``, where ``begin`` is a place of such a tree."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        begin += 1 << level
        yield level, begin - 1


def _root_between(begin: int, end: int, nodes: Nodes) -> bytes:
    return _fold([nodes(level, last) for level, last in _cover(begin, end)])


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The root over neighbouring complete subtrees, the largest first."""
    if not hashes:
        return EMPTY_ROOT
    found = hashes[-1]
    for left in reversed(hashes[:-1]):
        found = node_hash(left, found)
    return found
