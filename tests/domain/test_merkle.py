"""RFC 6962: the vectors of Certificate Transparency's own tests, and its recursive definition against ours."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.sealing.merkle import (
    EMPTY_ROOT,
    Frontier,
    Nodes,
    consistency_nodes,
    consistent,
    edge,
    inclusion_nodes,
    inclusion_path,
    leaf_hash,
    node_hash,
    root,
    root_of_inclusion,
)

DATA = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION_0_OF_8 = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]
INCLUSION_5_OF_8 = [
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]
CONSISTENCY_2_TO_5 = [
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
]
SIZES = st.integers(1, 70)


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


def kept(hashes: Sequence[bytes]) -> Nodes:
    """What growing a tree leaves behind with each leaf."""
    growing = Frontier.empty()
    rows = [growing.append(leaf) for leaf in hashes]
    return lambda level, last: rows[last][level]


def defined(hashes: Sequence[bytes]) -> bytes:
    """Section 2.1, word by word."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else sha256(b"").digest()
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return sha256(b"\x01" + defined(hashes[:half]) + defined(hashes[half:])).digest()


def defined_path(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """Section 2.1.1, word by word."""
    if len(hashes) == 1:
        return []
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    if index < half:
        return [*defined_path(index, hashes[:half]), defined(hashes[half:])]
    return [*defined_path(index - half, hashes[half:]), defined(hashes[:half])]


def defined_proof(size: int, hashes: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """Section 2.1.2, word by word."""
    if size == len(hashes):
        return [] if whole else [defined(hashes)]
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    if size <= half:
        return [*defined_proof(size, hashes[:half], whole=whole), defined(hashes[half:])]
    return [*defined_proof(size - half, hashes[half:], whole=False), defined(hashes[:half])]


def test_the_published_roots() -> None:
    hashes = [leaf_hash(data) for data in DATA]
    assert [root(hashes[:size]).hex() for size in range(1, 9)] == ROOTS
    assert root([]) == EMPTY_ROOT == sha256(b"").digest()


def test_the_published_paths() -> None:
    hashes = [leaf_hash(data) for data in DATA]
    assert [node.hex() for node in inclusion_path(hashes, 0)] == INCLUSION_0_OF_8
    assert [node.hex() for node in inclusion_path(hashes, 5)] == INCLUSION_5_OF_8
    assert [node.hex() for node in consistency_nodes(2, 5, kept(hashes))] == CONSISTENCY_2_TO_5


@given(st.integers(0, 70))
def test_the_root_is_the_one_that_is_defined(size: int) -> None:
    hashes = leaves(size)
    growing = Frontier.empty()
    for leaf in hashes:
        growing.append(leaf)
    assert root(hashes) == growing.root() == defined(hashes)
    assert growing.size == size


@given(SIZES, st.data())
def test_every_leaf_is_shown_to_be_in_the_tree_and_no_other(size: int, data: st.DataObject) -> None:
    hashes = leaves(size)
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_path(hashes, index)
    assert path == defined_path(index, hashes) == inclusion_nodes(index, size, kept(leaves(70)))
    assert root_of_inclusion(hashes[index], index, size, path) == defined(hashes)
    assert root_of_inclusion(leaf_hash(b"other"), index, size, path) != defined(hashes)
    assert root_of_inclusion(hashes[index], index, size, [*path, bytes(32)]) is None
    assert root_of_inclusion(hashes[index], size, size, path) is None
    if path:
        assert root_of_inclusion(hashes[index], index, size, path[:-1]) is None
        assert root_of_inclusion(hashes[index], index, size, [bytes(32), *path[1:]]) != defined(hashes)


@given(SIZES, st.data())
def test_a_tree_begins_with_its_older_ones_and_with_no_other(size: int, data: st.DataObject) -> None:
    hashes = leaves(size)
    old_size = data.draw(st.integers(1, size))
    old, new = defined(hashes[:old_size]), defined(hashes)
    path = consistency_nodes(old_size, size, kept(hashes))
    assert path == defined_proof(old_size, hashes)
    assert consistent(old_size, old, size, new, path)
    assert not consistent(old_size, bytes(32), size, new, path)
    assert not consistent(old_size, old, size, bytes(32), path)
    assert not consistent(old_size, old, size, new, [*path, bytes(32)])
    if path:
        assert not consistent(old_size, old, size, new, path[:-1])
        assert not consistent(old_size, old, size, new, [*path[:-1], bytes(32)])


@given(SIZES, st.data())
def test_the_edge_of_an_older_tree_is_found_in_what_is_kept(size: int, data: st.DataObject) -> None:
    old_size = data.draw(st.integers(0, size))
    hashes = leaves(size)
    found = Frontier.of(old_size, kept(hashes))
    assert found.root() == defined(hashes[:old_size])
    for leaf in hashes[old_size:]:
        found.append(leaf)
    assert found.root() == defined(hashes)
    assert len(edge(size)) == size.bit_count()


def test_leaves_and_nodes_are_told_apart() -> None:
    assert leaf_hash(bytes(64)) != node_hash(bytes(32), bytes(32))


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_a_leaf_that_is_not_there_has_no_path(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="is not in a tree"):
        inclusion_path(leaves(size), index)
    with pytest.raises(ValueError, match="is not in a tree"):
        inclusion_nodes(index, size, kept(leaves(3)))


@pytest.mark.parametrize(("old_size", "size"), [(0, 3), (4, 3)])
def test_a_tree_does_not_begin_with_a_larger_one_or_with_none(old_size: int, size: int) -> None:
    with pytest.raises(ValueError, match="does not begin"):
        consistency_nodes(old_size, size, kept(leaves(4)))
    assert not consistent(old_size, EMPTY_ROOT, size, EMPTY_ROOT, [])
