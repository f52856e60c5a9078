"""What is generated is committed as it is generated, and what is written names things that exist."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Mapping
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import domain
from api import problems
from api.main import description
from db.engine import tenant_transaction
from db.ids import new_id
from tests.house.rules import dotted
from tests.house.source import ROOT, files, in_rooms, modules
from tools.docs import catalog, pages
from tools.docs.errors import codes
from tools.docs.schema import ABOUT
from workflows.registry import WORKFLOWS

GENERATED = ("contracts/escrow.json", "docs/errors.md", "docs/openapi.json", "docs/schema.md")
EXAMPLES = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/schema.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def generated(database_url: str) -> Mapping[str, str]:
    """The documents as this code and the migrated database make them."""
    return pages(database_url)


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_committed_as_it_is(name: str, generated: Mapping[str, str]) -> None:
    assert (ROOT / name).read_text() == generated[name], f"{name} is out of date: run `python -m tools docs`"


def test_every_generated_page_is_compared(generated: Mapping[str, str]) -> None:
    assert sorted(generated) == sorted(GENERATED)


def test_every_table_says_what_it_is_for(database_url: str) -> None:
    assert [table.name for table in catalog.read(database_url).tables] == sorted(ABOUT)


@pytest.mark.parametrize("query", EXAMPLES, ids=lambda query: query.partition("\n")[0])
async def test_the_schemas_query_examples_run(query: str, tenants_engine: AsyncEngine, tenant: UUID) -> None:
    async with tenant_transaction(tenants_engine, tenant) as connection:
        statement = query.replace("<escrow id>", str(new_id())).rstrip(";\n")
        assert (await connection.exec_driver_sql(statement)).all() == []


def test_every_code_has_a_meaning() -> None:
    assert [code for code, meaning in codes().items() if not meaning.strip() or meaning == "…"] == []


def test_every_code_that_the_api_answers_is_documented() -> None:
    """Beside refusals: the codes of problems that the API makes by itself."""
    said = {
        str(node.args[2].value)
        for module in in_rooms("api")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and dotted(node.func).endswith("problem_response")
        if len(node.args) > 2 and isinstance(node.args[2], ast.Constant)
    }
    assert {"unavailable", "internal_error"} <= said
    placed = {code for of_status in problems.STATUS.values() for code in of_status}
    assert (said | placed) - codes().keys() == set()


def test_every_context_of_the_rules_has_its_codes_in_the_page() -> None:
    contexts = [importlib.import_module(f"domain.{found.name}") for found in pkgutil.iter_modules(domain.__path__)]
    tables: list[dict[str, str]] = [context.CODES for context in contexts if hasattr(context, "CODES")]
    assert len(tables) >= 4
    assert {code for table in tables for code in table} - codes().keys() == set()


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{name} → {target}"
        for name in files()
        if name.endswith(".md")
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / name).read_text())
        if not ((ROOT / name).parent / target).exists()
    ]
    assert not broken


class TestFeatures:
    """`docs/features.md` maps each feature to what carries it and to the tests that show it."""

    text = (ROOT / "docs/features.md").read_text()

    def test_every_test_that_it_names_exists(self) -> None:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", self.text)
        assert len(named) > 20
        sources = {module.path: module.text for module in modules()}
        missing = [
            f"{path}::{test}"
            for path, test in named
            if path not in sources or (test and not re.search(rf"(def|class) {test}\b", sources[path]))
        ]
        assert not missing

    def test_every_workflow_is_in_it(self) -> None:
        assert [workflow.__name__ for workflow in WORKFLOWS if f"`{workflow.__name__}`" not in self.text] == []

    def test_every_route_is_in_it(self) -> None:
        missing = [
            f"{method.upper()} {path}"
            for path, methods in description()["paths"].items()
            for method in methods
            if f"`{method.upper()} {path.removeprefix('/api/v1')}`" not in self.text
        ]
        assert not missing

    def test_every_row_names_a_test(self) -> None:
        rows = [line for line in self.text.splitlines() if line.startswith("| ") and not line.startswith("| feature")]
        assert rows
        assert [row for row in rows if "`tests/" not in row] == []
