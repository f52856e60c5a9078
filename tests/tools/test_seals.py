"""The check of the ledger names what was done to it: each test tampers with a real one as the owner of the server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from activities.sealing.sealer import SealsBroken, Signer
from db.sealing.streams import LEDGER
from kit.signing import SigningKey
from tests.databases import migrated_database
from tests.seals import Vault, open_vault
from tools.local.postgres import EmbeddedPostgres
from tools.seals.findings import Finding
from tools.seals.verify import Report, verify


@pytest.fixture
def sealing_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated_database(postgres) as url:
        yield url


@pytest.fixture
async def vault(sealing_url: str, tmp_path: Path) -> AsyncIterator[Vault]:
    """Ten transactions, two commits, in batches of four, two, and four; a checkpoint behind each commit."""
    async with open_vault(sealing_url, tmp_path) as vault:
        for amounts in (range(1, 7), range(7, 11)):
            await vault.deposit(*amounts, description="as agreed")
            await vault.seal()
            assert await vault.sign()
        yield vault


def check(vault: Vault, *, since_batch: int = 1) -> Report:
    keys, directories = [vault.key.public], [vault.signer.directory]
    return verify(vault.url, directories=directories, keys=keys, since_batch=since_batch)


def finding(vault: Vault, *, since_batch: int = 1) -> str:
    with pytest.raises(Finding) as caught:
        check(vault, since_batch=since_batch)
    return str(caught.value)


def id_of(vault: Vault, sequence: int) -> str:
    [(found,)] = vault.ask("SELECT transaction_id FROM ledger_transactions WHERE sequence = %s", sequence)
    return str(found)


def named(vault: Vault, sequence: int, identity: str | None = None) -> str:
    """How a finding begins that is about a row."""
    return f"sequence {sequence}, transaction {identity or id_of(vault, sequence)} of tenant {vault.tenant}, batch "


async def test_a_ledger_that_nobody_touched_passes(vault: Vault) -> None:
    report = check(vault)
    assert (report.entries, report.batches, report.checkpoints) == (10, 3, 2)
    assert (report.unsealed, report.unsigned_batches, report.origins) == (0, 0, ("test/ledger",))
    assert (report.accounts, report.holds) == (4, 0)
    await vault.deposit(11, 12)
    assert check(vault).unsealed == 2
    await vault.seal()
    report = check(vault)
    assert (report.entries, report.unsealed, report.unsigned_batches) == (12, 0, 1)
    for since in (2, 3, 4):
        assert check(vault, since_batch=since).batches == 5 - since


async def test_an_empty_ledger_passes(sealing_url: str, tmp_path: Path) -> None:
    async with open_vault(sealing_url, tmp_path) as vault:
        assert check(vault).entries == 0


async def test_an_edited_amount(vault: Vault) -> None:
    """Both legs, so that the books still balance."""
    vault.tamper(
        "UPDATE ledger_legs SET amount_minor = amount_minor * 2 WHERE transaction_id ="
        " (SELECT transaction_id FROM ledger_transactions WHERE sequence = 5)"
    )
    assert finding(vault).startswith(named(vault, 5) + "2: edited")


@pytest.mark.parametrize(
    "change",
    [
        "description = 'otherwise agreed'",
        "description = NULL",
        "reference = reference || ' '",
        "effective_at = effective_at + interval '1 microsecond'",
        "recorded_at = recorded_at - interval '1 microsecond'",
        "kind = 'Deposit'",
        "escrow_id = transaction_id",
        "reverses_id = transaction_id",
    ],
)
async def test_an_edited_transaction(vault: Vault, change: str) -> None:
    vault.tamper(f"UPDATE ledger_transactions SET {change} WHERE sequence = 3")
    assert finding(vault).startswith(named(vault, 3) + "1: edited")


@pytest.mark.parametrize(
    "change", ["account_id = account_id + 1", "hold_id = transaction_id, pot = 'held'", "asset = 'USDT'"]
)
async def test_an_edited_leg(vault: Vault, change: str) -> None:
    identity = id_of(vault, 7)
    vault.tamper(f"UPDATE ledger_legs SET {change} WHERE transaction_id = '{identity}' AND leg_no = 2")
    assert finding(vault).startswith(named(vault, 7) + "3: edited")


async def test_a_leg_more_and_a_leg_less(vault: Vault) -> None:
    identity = id_of(vault, 6)
    vault.tamper(
        "INSERT INTO ledger_legs SELECT tenant_id, transaction_id, leg_no + 2, account_id, asset, pot, -amount_minor"
        f" FROM ledger_legs WHERE transaction_id = '{identity}'"
    )
    assert finding(vault).startswith(named(vault, 6) + "2: edited")
    vault.tamper(f"DELETE FROM ledger_legs WHERE transaction_id = '{identity}'")
    assert finding(vault).startswith(named(vault, 6) + "2: edited")


async def test_the_first_of_several_is_named(vault: Vault) -> None:
    vault.tamper("UPDATE ledger_transactions SET description = '' WHERE sequence IN (9, 4, 8)")
    assert finding(vault).startswith(named(vault, 4))
    assert finding(vault, since_batch=2).startswith(named(vault, 8))


def drop(vault: Vault, sequence: int) -> str:
    identity = id_of(vault, sequence)
    for table in ("ledger_legs", "ledger_transactions"):
        vault.tamper(f"DELETE FROM {table} WHERE transaction_id = '{identity}'")
    return identity


@pytest.mark.parametrize(("sequence", "batch"), [(1, 1), (2, 1), (4, 1), (6, 2), (10, 3)])
async def test_a_dropped_transaction(vault: Vault, sequence: int, batch: int) -> None:
    identity = drop(vault, sequence)
    assert finding(vault) == named(vault, sequence, identity) + f"{batch}: dropped"


async def test_swapped_sequences(vault: Vault) -> None:
    """Within a batch, and across two."""
    for one, other, batch in ((2, 3, 1), (4, 8, 1)):
        first = id_of(vault, one)
        swap = [(one, -1), (other, one), (-1, other)]
        changes = [
            f"UPDATE ledger_transactions SET sequence = {to} WHERE sequence = {of}" for of, to in swap
        ]  # the column is an identity: only its default is
        vault.tamper("ALTER TABLE ledger_transactions ALTER sequence DROP IDENTITY IF EXISTS", *changes)
        expected = named(vault, one, first) + f"{batch}: reordered; it stands at sequence {other} now"
        assert finding(vault) == expected
        vault.tamper(*(f"UPDATE ledger_transactions SET sequence = {to} WHERE sequence = {of}" for of, to in swap))
    assert check(vault).entries == 10


def insert(vault: Vault, sequence: int) -> str:
    """A copy of transaction 1 with its legs, at another place."""
    [(made,)] = vault.ask("SELECT uuidv7()")
    vault.tamper(
        "INSERT INTO ledger_transactions (tenant_id, transaction_id, sequence, kind, leg_count, effective_at)"
        f" OVERRIDING SYSTEM VALUE SELECT tenant_id, '{made}', {sequence}, kind, leg_count, effective_at"
        " FROM ledger_transactions ORDER BY sequence LIMIT 1",
        "INSERT INTO ledger_legs SELECT tenant_id, '" + str(made) + "', leg_no, account_id, asset, pot, amount_minor"
        " FROM ledger_legs WHERE transaction_id = (SELECT transaction_id FROM ledger_transactions ORDER BY sequence"
        " LIMIT 1)",
    )
    return str(made)


async def test_a_row_inserted_among_sealed_ones(vault: Vault) -> None:
    async with vault.posting_under_way(vault.posting(1), vault.posting(2)):
        pass  # rolled back: the numbers 11 and 12 are nobody's
    await vault.deposit(3)
    await vault.seal()
    made = insert(vault, 12)
    assert finding(vault) == named(vault, 12, made) + "4: inserted; no seal covers it"
    made = insert(vault, -5)
    assert finding(vault) == named(vault, -5, made) + "1: inserted; no seal covers it"


async def test_a_row_in_the_place_of_another(vault: Vault) -> None:
    gone = drop(vault, 6)
    made = insert(vault, 6)
    assert finding(vault).startswith(named(vault, 6, gone) + f"2: dropped; transaction {made} of tenant ")


@pytest.mark.parametrize("upwards", [False, True])
async def test_a_dropped_end(vault: Vault, upwards: bool) -> None:
    """The last rows, their seals and the checkpoint over them: only the checkpoint outside remembers."""
    for sequence in (7, 8, 9, 10):
        drop(vault, sequence)
    changes = ["DELETE FROM seal_batches WHERE batch_no = 3", "DELETE FROM seal_checkpoints WHERE tree_size = 3"]
    vault.tamper(*(changes if upwards else changes[:1]))
    found = finding(vault)
    assert found.startswith("batch 3 is missing: the database ends with batch 2, sequence 6, and a checkpoint of 3")
    assert "every row sealed behind sequence 6 was dropped" in found


async def test_a_batch_that_is_missing(vault: Vault) -> None:
    vault.tamper("DELETE FROM seal_batches WHERE batch_no = 2")
    assert "batch 2 is missing: dropped, with the seals of the rows behind sequence 4 and before" in finding(vault)


async def test_edited_records_of_a_seal(vault: Vault) -> None:
    vault.tamper("UPDATE seal_batches SET entries = set_byte(entries, 72 + 71, 0) WHERE batch_no = 1")
    found = finding(vault)
    assert found.startswith("batch 1, entry of sequence 2, transaction ")
    assert found.endswith("the seal's own record was edited; the rows are as they were sealed")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("root = set_byte(root, 0, get_byte(root, 0) # 1)", "batch 2: the seal's own record or its root was edited"),
        ("nodes = set_byte(nodes, 0, get_byte(nodes, 0) # 1)", "batch 2: the tree's nodes that are kept with it"),
        ("total_count = 7", "batch 2 of sequence 5 to 6: its head was edited"),
        ("first_key = 4", "batch 2 of sequence 4 to 6: its head was edited"),
    ],
)
async def test_an_edited_seal(vault: Vault, change: str, expected: str) -> None:
    vault.tamper(f"UPDATE seal_batches SET {change} WHERE batch_no = 2")
    assert finding(vault).startswith(expected)


async def test_history_that_was_rewritten_consistently(vault: Vault) -> None:
    vault.tamper("UPDATE ledger_transactions SET description = 'otherwise agreed' WHERE sequence = 8")
    vault.reseal()
    found = finding(vault)
    assert found.startswith("history was rewritten, rows and seals together: the checkpoint of 3 batches")
    assert found.endswith("in batch 3 or behind it, between sequence 7 and 10")
    vault.tamper("DELETE FROM seal_checkpoints")
    assert finding(vault) == found, "the checkpoints outside are enough"
    with pytest.raises(SealsBroken, match="that the database does not have"):
        await vault.sign()


async def test_rewritten_history_is_not_signed_again(vault: Vault) -> None:
    vault.tamper("UPDATE ledger_transactions SET description = 'otherwise agreed' WHERE sequence = 8")
    vault.reseal()
    await vault.deposit(11)
    await vault.seal()
    with pytest.raises(SealsBroken, match="the first 3 batches are not those that were signed"):
        await vault.new_sealer().checkpoint(LEDGER)


async def test_a_forged_checkpoint(vault: Vault) -> None:
    """Signed with a key of the forger's own, and put into the database and outside."""
    forger = Signer(SigningKey.generate(), vault.folder / "forged", "test", every_seconds=0)
    vault.tamper("DELETE FROM seal_checkpoints")
    await vault.new_sealer(signer=forger).checkpoint(LEDGER)
    assert "did not sign this" in finding(vault)
    vault.file.path.write_bytes(forger.file(LEDGER).path.read_bytes())
    assert "line 1: test/ledger with the key" in finding(vault)
    with pytest.raises(SealsBroken, match="did not sign this"):
        await vault.sign()


async def test_dropped_and_edited_checkpoints(vault: Vault) -> None:
    vault.tamper("UPDATE seal_checkpoints SET root = sha256('') WHERE tree_size = 2")
    assert "the database's checkpoint of 2 batches: its note was signed for 2 batches or another root" in finding(vault)
    vault.tamper("DELETE FROM seal_checkpoints WHERE tree_size = 2")
    assert "the database has no checkpoint of 2 batches" in finding(vault)


async def test_a_file_outside_whose_end_was_cut_off(vault: Vault) -> None:
    await vault.deposit(1)
    await vault.seal()
    await vault.sign()
    lines = vault.file.path.read_bytes().splitlines(keepends=True)
    vault.file.path.write_bytes(b"".join(lines[:-1]))
    assert check(vault).checkpoints == 3, "a crash may have come between database and file"
    vault.file.path.write_bytes(b"".join(lines[:-2]))
    assert finding(vault).startswith("the checkpoints outside lack the one of 3 batches")
    vault.file.path.unlink()
    assert finding(vault).startswith("the checkpoints outside lack the one of 2 batches")
    assert not await vault.sign()
    assert vault.file.path.read_bytes() == b"".join(lines), "what was cut off is in the database, and comes back"


async def test_a_file_outside_that_was_edited(vault: Vault) -> None:
    first, second = vault.file.path.read_bytes().splitlines(keepends=True)
    vault.file.path.write_bytes(second + first)
    assert "line 2: 2 batches after 3: edited or reordered" in finding(vault)
    vault.file.path.write_bytes(first + b"something\n" + second)
    assert "line 2: this is no checkpoint: damaged" in finding(vault)
    content = json.loads(second)
    content["note"] = content["note"].replace("\n3\n", "\n4\n")
    vault.file.path.write_bytes(first + json.dumps(content).encode() + b"\n")
    assert "line 2: the signature of test/ledger does not belong to this text" in finding(vault)


@pytest.mark.parametrize("cut", [1, 30, -1])
async def test_a_crash_in_the_middle_of_a_line_heals(vault: Vault, cut: int) -> None:
    first, second = vault.file.path.read_bytes().splitlines(keepends=True)
    vault.file.path.write_bytes(first + second[:cut])
    assert check(vault).checkpoints == 2
    await vault.new_sealer().checkpoint(LEDGER)
    assert vault.file.path.read_bytes() == first + second[:cut] + b"\n" + second
    await vault.deposit(1)
    await vault.seal()
    assert await vault.sign()
    assert check(vault).checkpoints == 3


async def test_a_new_key_goes_on_where_the_old_one_ended(vault: Vault) -> None:
    fresh = SigningKey.generate()
    await vault.deposit(11)
    await vault.seal()
    with pytest.raises(SealsBroken, match="did not sign this"):
        await vault.new_sealer(signer=Signer(fresh, vault.signer.directory, "test", 0)).checkpoint(LEDGER)
    renewed = Signer(fresh, vault.signer.directory, "test", 0, old_keys=(vault.key.public,))
    assert await vault.new_sealer(signer=renewed).checkpoint(LEDGER)
    report = verify(vault.url, directories=[renewed.directory], keys=[fresh.public, vault.key.public])
    assert report.checkpoints == 3
    assert "did not sign this" in finding(vault)


async def test_nothing_is_signed_twice_or_when_nothing_is_new(vault: Vault) -> None:
    assert not await vault.sign()
    await vault.deposit(1)
    await vault.seal()
    slow = Signer(vault.key, vault.signer.directory, "test", every_seconds=60)
    assert not await vault.new_sealer(signer=slow).checkpoint(LEDGER), "the last one is not a minute old"
    assert await vault.sign()


async def test_two_folders_are_both_kept_up(vault: Vault) -> None:
    """Workers on two machines: whoever signs, each writes to its own disk."""
    other = Signer(vault.key, vault.folder / "other", "test", every_seconds=0)
    assert not await vault.new_sealer(signer=other).checkpoint(LEDGER)
    assert other.file(LEDGER).path.read_bytes() == vault.file.path.read_bytes()


async def test_a_database_that_was_restored_is_not_sealed_on(vault: Vault) -> None:
    vault.tamper("DELETE FROM seal_batches WHERE batch_no = 3", "DELETE FROM seal_checkpoints WHERE tree_size = 3")
    with pytest.raises(SealsBroken, match="ends with a checkpoint of 3 batches that the database does not have"):
        await vault.sign()
    fresh = Signer(vault.key, vault.folder / "fresh", "restored", every_seconds=0)
    await vault.seal()
    assert await vault.new_sealer(signer=fresh).checkpoint(LEDGER), "under a new name, in a new folder"
    report = verify(vault.url, directories=[fresh.directory], keys=[vault.key.public])
    assert report.origins == ("test/ledger", "restored/ledger")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE accounts SET available_minor = available_minor + 1 WHERE ref = 'user 1'", "its balance is"),
        ("DELETE FROM accounts WHERE ref = 'user 1'", "its balance is None available"),
        ("UPDATE accounts SET held_minor = 5 WHERE ref = 'user 1'", "and 5 held"),
        (
            "INSERT INTO ledger_legs SELECT tenant_id, uuidv7(), leg_no, account_id, asset, pot, amount_minor"
            " FROM ledger_legs LIMIT 1",
            "its transaction is not there",
        ),
        (
            "INSERT INTO holds (tenant_id, hold_id, account_id, asset, placed_minor, remaining_minor)"
            " SELECT tenant_id, uuidv7(), account_id, asset, 7, 7 FROM accounts LIMIT 1",
            "7 remain, its legs add up to 0",
        ),
    ],
)
async def test_balances_that_are_not_what_the_legs_say(vault: Vault, change: str, expected: str) -> None:
    vault.tamper(change)
    assert expected in finding(vault)


async def test_an_unbalanced_transaction_that_is_not_sealed_yet(vault: Vault) -> None:
    [identity] = await vault.deposit(5)
    vault.tamper(f"UPDATE ledger_legs SET amount_minor = 7 WHERE transaction_id = '{identity}' AND leg_no = 2")
    assert finding(vault).startswith(f"sequence 11, transaction {identity} of tenant {vault.tenant}: its legs do not")
