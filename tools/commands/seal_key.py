"""`seal-key`: make sure that there is a key to sign checkpoints with."""

from __future__ import annotations

import argparse
from pathlib import Path

from kit.signing import KeyUnusable, SigningKey
from tools.commands.console import say
from tools.local.home import write_atomically
from tools.local.process import StackError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument("--file", type=Path, required=True, help="where the key lies; its public half lies in FILE.pub")


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    file: Path = options.file
    made = not file.exists()
    try:
        key = SigningKey.generate() if made else SigningKey.load(file)
        if made:
            write_atomically(file, key.private_pem(), mode=0o600)
        write_atomically(public_half(file), key.public_pem())
    except (KeyUnusable, OSError) as error:
        raise StackError(str(error)) from error
    say(f"{'a new key was written to' if made else 'the key is in'} {file}, its public half to {public_half(file)}")
    return 0


def public_half(file: Path) -> Path:
    """Where the public half of a key lies."""
    return file.with_name(f"{file.name}.pub")
