"""The tables of codes are complete, and nothing in them is dead."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import domain
from domain import controls, escrow, identity, ledger, money, settlement, transfers
from domain.margin import codes as margin_codes
from domain.webhooks import codes as webhook_codes

ROOM = Path(domain.__path__[0])
CONTEXTS = {
    "escrow": (sorted((ROOM / "escrow").glob("*.py")), escrow.CODES),
    "ledger": (sorted((ROOM / "ledger").glob("*.py")), ledger.CODES),
    "identity": ([ROOM / "identity.py"], identity.CODES),
    "transfers": ([ROOM / "transfers.py"], transfers.CODES),
    "controls": ([ROOM / "controls.py"], controls.CODES),
    "settlement": ([ROOM / "settlement.py"], settlement.CODES),
    "margin": (sorted((ROOM / "margin").glob("*.py")), margin_codes.CODES),
    "webhooks": (sorted((ROOM / "webhooks").glob("*.py")), webhook_codes.CODES),
    "money": ([ROOM / "money.py"], money.CODES),
}


@pytest.mark.parametrize(("files", "codes"), CONTEXTS.values(), ids=CONTEXTS)
def test_every_code_is_documented_and_used(files: list[Path], codes: dict[str, str]) -> None:
    raised: set[str] = set()
    written: list[str] = []
    for file in files:
        if file.name == "codes.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Refusal"), args=[ast.Constant(value=str(code)), *_]):
                    raised.add(code)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and not is_key(node, file):
                written.append(node.value)
    assert raised <= codes.keys()
    assert codes.keys() <= set(written)


def is_key(node: ast.Constant, file: Path) -> bool:
    """Whether a string stands in the table itself, where it does not count as used."""
    line = file.read_text().splitlines()[node.lineno - 1]
    return line.lstrip().startswith(f'"{node.value!s}": ')
