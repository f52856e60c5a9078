"""`chains`: make sure that there is a file of chains to begin with, or say what is wrong with the one that there is."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from kit.build import ROOT
from kit.chains import ChainsUnusable, read_chains
from tools.commands.console import say
from tools.local.home import Home, write_atomically
from tools.local.process import StackError

#: Every line of it is a comment: a stack that nobody told of a chain follows none.
EXAMPLE = ROOT / "deploy" / "chains.toml"
_LOCAL = re.compile(r"^# \[chains\.local\]\n(?:# .+\n)+", re.MULTILINE)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in (
        ("start", "write an example where there is no file"),
        ("check", "read it, and say what is in it"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("--file", type=Path, help="default: CHAINS_FILE, else the local stack's")
        if name == "start":
            action.add_argument("--local-port", type=int, help="have a chain `local` in it, whose node is on this port")


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    file = Path(options.file or os.environ.get("CHAINS_FILE") or Home.from_environment().chains_file)
    if options.action == "start":
        made = not file.exists()
        if made:
            write_atomically(file, example(options.local_port))
        say(f"{'an example of chains was written to' if made else 'chains are in'} {file}")
        return 0
    try:
        found = read_chains(file).chains
        for name, chain in found.items():
            providers = [provider for provider in chain.providers if provider.address()]
            names = ", ".join(provider.name for provider in providers)
            say(f"  {name:<12} {chain.network}: {names}; {chain.agreeing} must agree")
    except ChainsUnusable as error:
        raise StackError(str(error)) from None
    say(f"{len(found)} chains in {file}; API and worker read it when they start")
    return 0


def example(local_port: int | None) -> str:
    """The example; with a port, its chain ``local`` is no comment. It costs nothing while nobody has it followed."""
    text = EXAMPLE.read_text(encoding="utf-8")
    if local_port is None:
        return text
    return _LOCAL.sub(
        lambda found: found[0].replace("# ", "", 1).replace("\n# ", "\n").replace(":8545", f":{local_port}"), text
    )
