"""`contract`: compile the escrow contract, to be deployed with a tool of one's choice."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tools.commands.console import say
from tools.contracts import SOURCE, build
from tools.local.home import Home, write_atomically


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument("--out", type=Path, help="where to write the ABI and the bytecode, as JSON")


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    artefact = build(SOURCE, Home.from_environment().contracts)
    if options.out is not None:
        write_atomically(options.out, json.dumps(asdict(artefact), indent=1) + "\n")
    interface = artefact.interface()
    size_bytes = (len(artefact.runtime) - 2) // 2
    say(f"{artefact.name}, {size_bytes} bytes, by {artefact.compiler}")
    say(f"  sha256 of the source           {interface['source_sha256']}")
    say(f"  sha256 of the code on a chain  {interface['runtime_sha256']}")
    return 0
