"""`demo`: play a whole escrow against the running stack."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from tools.demo import DemoFailed, Desk, connected, play
from tools.local.home import Home
from tools.local.process import StackError


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    """Do it; the exit status."""
    with against_the_stack(Home.from_environment()) as (desk, stack):
        play(desk, Console(highlight=False, soft_wrap=True), stack["temporal_ui_url"])
    return 0


@contextmanager
def against_the_stack(home: Home) -> Iterator[tuple[Desk, Mapping[str, Any]]]:
    """The API of the running stack, and how else it is reached; what fails is a ``StackError``."""
    file = home.stack_file
    if not file.exists():
        raise StackError(f"no stack is running ({file} is missing): run `make up` first")
    stack = json.loads(file.read_text())
    key = Path(stack["api_key_file"]).read_text().strip()
    try:
        with connected(stack["api_url"], key) as desk:
            yield desk, stack
    except httpx.TransportError as error:
        raise StackError(f"the API at {stack['api_url']} does not answer: {error}") from error
    except DemoFailed as failure:
        raise StackError(str(failure)) from failure
