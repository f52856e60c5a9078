"""`demo-chain`: play the main job on a real chain against the running stack."""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from kit.chains import ChainsUnusable, read_chains
from tools.commands.demo import against_the_stack
from tools.contracts import SOURCE, build
from tools.demo_chain import Story
from tools.local.anvil import anvil, anvil_program
from tools.local.home import Home
from tools.local.process import StackError
from tools.onchain import DevelopmentChain

#: What the configuration calls the chain that is played on.
LOCAL_CHAIN = "local"


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    """Do it; the exit status."""
    program = anvil_program()
    if program is None:
        raise StackError("anvil is not installed: run `npm ci --prefix tests/npm`, or `make demo-chain`")
    home = Home.from_environment()
    contract = build(SOURCE, home.contracts)
    # Other accounts each time: the desk keeps what it knows of users and contracts.
    accounts = ("--mnemonic-random", "12")
    with (
        against_the_stack(home) as (desk, stack),
        anvil(program, home.log("anvil"), *accounts, port=_port(home)) as url,
        closing(DevelopmentChain(url)) as chain,
    ):
        story = Story(desk, chain, chain.deploy(contract), Console(highlight=False, soft_wrap=True))
        story.play(LOCAL_CHAIN, stack["temporal_ui_url"])
    return 0


def _port(home: Home) -> int:
    """Where the stack looks for the chain."""
    file = Path(os.environ.get("CHAINS_FILE") or home.chains_file)
    try:
        chain = read_chains(file).chains.get(LOCAL_CHAIN)
        where = None if chain is None else urlsplit(chain.providers[0].address())
    except ChainsUnusable as error:
        raise StackError(str(error)) from None
    if where is None or where.hostname != "127.0.0.1" or where.port is None:
        raise StackError(f"{file} has no chain {LOCAL_CHAIN} on 127.0.0.1, as the file that `make up` writes does")
    return where.port
