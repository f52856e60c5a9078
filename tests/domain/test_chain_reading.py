"""Addresses as people write them, and when a relayer is not well."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.chain import ChainKind, RelayerStatus
from domain.chain.addresses import read_address, write_address
from domain.chain.health import Course, Limits, Trouble, troubles
from domain.chain.identity import relayer_id_of
from domain.errors import Refusal

BITCOIN, TESTNET = "bip122:000000000019d6689c085ae165831e93", "bip122:000000000933ea01ad0ee984209779ba"
LITECOIN, REGTEST = "bip122:12a765e31ffd4059bada1e25190f6e98", "bip122:530827f38f93b43ed12af0b3ad25a288"
DOGECOIN = "bip122:1a91e3dace36e2be3bf030a65679fe82"

#: Published pairs: BIP 173, BIP 350, and well-known outputs.
WRITTEN = [
    (BITCOIN, "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    (
        TESTNET,
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (
        BITCOIN,
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ),
    (BITCOIN, "bc1sw50qgdz25j", "6002751e"),
    (BITCOIN, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac"),
    (BITCOIN, "3P14159f73E4gFr7JterCCQh9QjiTjiZrG", "a914e9c3dd0c07aac76179ebc76a6c78d4d67c6c160a87"),
]
BROKEN = [
    (BITCOIN, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5"),
    (BITCOIN, "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7"),
    # Of a later version with the older checksum, and the other way round (BIP 350).
    (BITCOIN, "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd"),
    (BITCOIN, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh"),
    (BITCOIN, "bc1"),
    (BITCOIN, "bc1Qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
    (BITCOIN, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb"),
    (TESTNET, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
    (DOGECOIN, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
    ("bip122:nobody", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
    (BITCOIN, "script:zz"),
    (BITCOIN, "script:"),
]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WELL = Course(
    status=RelayerStatus.FOLLOWING,
    reason=None,
    registered_at=NOW - timedelta(days=1),
    block_number=100,
    block_at=NOW - timedelta(seconds=12),
    head_number=100,
    head_at=NOW - timedelta(seconds=12),
    heard_at=NOW,
    gap_blocks=0,
)
LIMITS = Limits(lag_blocks_max=20, lag_seconds_max=300)


@pytest.mark.parametrize(("network", "written", "script"), WRITTEN)
def test_an_address_is_its_script(network: str, written: str, script: str) -> None:
    read = read_address(ChainKind.UTXO, network, written, field="a")
    assert read.hex() == script
    shown = write_address(ChainKind.UTXO, network, read)
    assert shown == (written.lower() if written.startswith("BC1") else written)


@pytest.mark.parametrize(("network", "written"), BROKEN)
def test_a_wrong_digit_or_another_network_is_refused(network: str, written: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_address(ChainKind.UTXO, network, written, field="addresses.3")
    assert (refused.value.code, refused.value.field) == ("address_invalid", "addresses.3")


@given(st.sampled_from([BITCOIN, TESTNET, LITECOIN, REGTEST, DOGECOIN, "bip122:unheard-of"]), st.data())
def test_what_is_written_is_read_again(network: str, data: st.DataObject) -> None:
    body = data.draw(st.binary(min_size=20, max_size=20))
    program = data.draw(st.binary(min_size=2, max_size=40))
    version = data.draw(st.integers(1, 16))
    scripts = [
        b"\x76\xa9\x14" + body + b"\x88\xac",
        b"\xa9\x14" + body + b"\x87",
        b"\x00\x14" + body,
        bytes([0x50 + version, len(program)]) + program,
        data.draw(st.binary(min_size=1, max_size=60)),
    ]
    for script in scripts:
        written = write_address(ChainKind.UTXO, network, script)
        assert read_address(ChainKind.UTXO, network, written, field="a") == script


def test_the_case_of_a_contracts_address_means_nothing() -> None:
    read = read_address(ChainKind.EVM, "eip155:1", "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419", field="contract")
    assert write_address(ChainKind.EVM, "eip155:1", read) == "0x5f4ec3df9cbd43714fe2740f5e3616155c5b8419"
    for broken in ("5f4eC3Df9cbd43714FE2740f5E3616155c5b8419", "0x5f", "0x" + "g" * 40, ""):
        with pytest.raises(Refusal):
            read_address(ChainKind.EVM, "eip155:1", broken, field="contract")


def test_a_relayers_id_names_its_contract_or_stands_for_its_addresses() -> None:
    assert relayer_id_of("mainnet", "eip155:1", (b"\xaa" * 20,), contract=True) == "mainnet:0x" + "aa" * 20
    some, others = [relayer_id_of("ltc", LITECOIN, scripts, contract=False) for scripts in ((b"1", b"2"), (b"1",))]
    assert some != others
    assert some == relayer_id_of("ltc", LITECOIN, (b"2", b"1"), contract=False)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"head_number": 120}, []),
        ({"head_number": 121}, [Trouble.BEHIND]),
        ({"heard_at": NOW - timedelta(seconds=300)}, []),
        ({"heard_at": NOW - timedelta(seconds=301)}, [Trouble.SILENT]),
        ({"heard_at": None, "head_number": None, "head_at": None}, [Trouble.SILENT]),
        ({"heard_at": None, "registered_at": NOW}, []),
        # A node that began anew, or another chain in its place.
        ({"block_number": 100, "head_number": 80}, []),
        ({"block_number": 100, "head_number": 79}, [Trouble.SILENT]),
        ({"block_number": 100, "head_number": 79, "block_at": None}, []),
        ({"gap_blocks": 1}, [Trouble.GAPS]),
        ({"status": RelayerStatus.HALTED}, [Trouble.HALTED]),
        (
            {"status": RelayerStatus.HALTED, "head_number": 500, "gap_blocks": 2},
            [Trouble.HALTED, Trouble.BEHIND, Trouble.GAPS],
        ),
        ({"status": RelayerStatus.PAUSED}, []),
        ({"status": RelayerStatus.PAUSED, "heard_at": NOW - timedelta(hours=1)}, [Trouble.SILENT]),
        ({"status": RelayerStatus.OBSERVING, "heard_at": None, "gap_blocks": 9}, []),
    ],
)
def test_what_is_the_matter_with_a_relayer(changes: dict[str, object], found: list[Trouble]) -> None:
    course = replace(WELL, **changes)  # type: ignore[arg-type]
    assert [code for code, _ in troubles(course, LIMITS, NOW)] == found


def test_a_chain_that_stands_still_is_told_where_that_was_asked_for() -> None:
    stands = replace(WELL, head_at=NOW - timedelta(seconds=181))
    assert troubles(stands, LIMITS, NOW) == []
    found = troubles(stands, replace(LIMITS, still_seconds_max=180), NOW)
    assert [code for code, _ in found] == [Trouble.STILL]
    assert troubles(stands, replace(LIMITS, still_seconds_max=181), NOW) == []


def test_a_chain_that_no_configuration_names_is_told() -> None:
    assert [code for code, _ in troubles(WELL, None, NOW)] == [Trouble.UNCONFIGURED]


def test_lag_in_seconds_is_by_the_chains_clock() -> None:
    assert (WELL.lag_blocks, WELL.lag_seconds) == (0, 0)
    behind = replace(WELL, head_number=105, head_at=WELL.block_at + timedelta(seconds=60) if WELL.block_at else None)
    assert (behind.lag_blocks, behind.lag_seconds) == (5, 60)
    assert replace(WELL, head_number=None).lag_blocks is None
    assert replace(behind, block_at=None).lag_seconds is None
