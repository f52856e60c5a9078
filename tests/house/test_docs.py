"""What is generated is committed as it is generated, and what is written names things that exist."""

from __future__ import annotations

import re

import pytest

from api.main import description
from tests.house.source import ROOT, files, modules
from tools.docs import pages
from tools.docs.errors import codes
from workflows.registry import WORKFLOWS

PAGES = pages()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_generated_page_is_committed_as_it_is(name: str) -> None:
    assert (ROOT / name).read_text() == PAGES[name], f"{name} is out of date: run `python -m tools docs`"


def test_every_code_has_a_meaning() -> None:
    assert [code for code, meaning in codes().items() if not meaning.strip() or meaning == "…"] == []


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
