"""`demo`: play a whole escrow against the running stack."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import httpx
from rich.console import Console

from tools.demo import DemoFailed, connected, play
from tools.local.home import Home
from tools.local.process import StackError


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    """Do it; the exit status."""
    file = Home.from_environment().stack_file
    if not file.exists():
        raise StackError(f"no stack is running ({file} is missing): run `make up` first")
    stack = json.loads(file.read_text())
    key = Path(stack["api_key_file"]).read_text().strip()
    try:
        with connected(stack["api_url"], key) as desk:
            play(desk, Console(highlight=False, soft_wrap=True), stack["temporal_ui_url"])
    except httpx.TransportError as error:
        raise StackError(f"the API at {stack['api_url']} does not answer: {error}") from error
    except DemoFailed as failure:
        raise StackError(str(failure)) from failure
    return 0
