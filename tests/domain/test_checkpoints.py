"""Signed notes and checkpoints: C2SP's published examples, and what is no checkpoint of ours."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from domain.sealing.notes import Checkpoint, NoteInvalid, VerifierKey, opened, read, sign
from kit.signing import KeyUnusable, SigningKey, load_public, verify

TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
NOTE = f"{TEXT}\n— PeterNeumann {SIGNATURE}\n"
KEY = SigningKey.generate()
NAME = VerifierKey("holdfast/ledger", KEY.public)
CHECKPOINT = Checkpoint("holdfast/ledger", 17, bytes(range(32)))


def peter() -> VerifierKey:
    return VerifierKey("PeterNeumann", base64.b64decode(PETER.rpartition("+")[2])[1:])


def signed(text: str, key: VerifierKey = NAME) -> str:
    return sign(text, key, KEY.sign)


def test_the_published_note_is_read() -> None:
    assert str(peter()) == PETER
    assert opened(NOTE, peter(), verify) == TEXT


def test_a_checkpoint_is_read_back() -> None:
    note = signed(CHECKPOINT.text())
    assert note.startswith("holdfast/ledger\n17\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\n— holdfast/ledger ")
    assert read(note, KEY.public, verify) == CHECKPOINT


def test_a_witness_may_sign_beside_us() -> None:
    witness = SigningKey.generate()
    theirs = sign(CHECKPOINT.text(), VerifierKey("witness.example/w1", witness.public), witness.sign)
    both = signed(CHECKPOINT.text()) + theirs.rpartition("\n\n")[2]
    assert read(both, KEY.public, verify) == CHECKPOINT
    with pytest.raises(NoteInvalid, match="did not sign"):
        read(theirs, KEY.public, verify)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("\n17\n", "\n18\n"),
        lambda note: note.replace("AAEC", "AAED"),
        lambda note: note.replace("holdfast/ledger", "holdfast/other"),
        lambda note: note.replace("\n\n", "\nmore\n\n"),
        lambda note: note[:-1],
        lambda note: note[:-6] + ("B" if note[-6] == "A" else "A") + note[-5:],
        lambda note: note.replace("— ", "- "),
        lambda note: note.partition("\n\n")[0],
        lambda note: "",
        lambda note: note + "\n",
        lambda note: note + note.rpartition("\n\n")[2] * 16,
    ],
)
def test_what_was_changed_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NoteInvalid):
        read(change(signed(CHECKPOINT.text())), KEY.public, verify)


@pytest.mark.parametrize(
    "text",
    [
        "holdfast/ledger\n17\n",
        "holdfast/ledger\n017\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "holdfast/ledger\n-1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "holdfast/ledger\n17\nAAEC\n",
        "holdfast/ledger\n17\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n",
        "holdfast/ledger\n17\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\nextension\n",
    ],
)
def test_what_we_signed_but_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteInvalid):
        read(signed(text), KEY.public, verify)


@pytest.mark.parametrize("name", ["", "two words", "a+b"])
def test_a_name_that_a_note_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(NoteInvalid):
        VerifierKey(name, bytes(32))


def test_keys_go_through_files(tmp_path: Path) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_text(KEY.private_pem())
    public.write_text(KEY.public_pem())
    assert SigningKey.load(private).public == KEY.public == load_public(public)
    assert KEY.private_pem() not in repr(KEY)
    for load, file in ((SigningKey.load, public), (load_public, private), (SigningKey.load, tmp_path / "none")):
        with pytest.raises(KeyUnusable, match=file.name):
            load(file)


def test_openssl_reads_our_keys_and_we_read_its(tmp_path: Path) -> None:
    made = tmp_path / "openssl.pem"
    done = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", made], check=False, timeout=20)
    if done.returncode != 0:
        pytest.skip("this openssl does not know Ed25519")
    key = SigningKey.load(made)
    shown = subprocess.run(
        ["openssl", "pkey", "-in", made, "-pubout"], check=True, capture_output=True, text=True, timeout=20
    )
    assert shown.stdout == key.public_pem()
