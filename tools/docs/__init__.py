"""Documents that are made from the code, so that they cannot drift from it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from kit.build import ROOT
from tools.contracts import INTERFACE, interface_page
from tools.docs import catalog
from tools.docs.errors import errors_page
from tools.docs.schema import schema_page
from tools.local.home import Home


def pages(database_url: str) -> Mapping[str, str]:
    """Every generated document: its path below the root, and its text. The database is migrated."""
    # Only this one needs the API, and with it the web framework.
    from api.main import description

    return {
        "docs/schema.md": schema_page(catalog.read(database_url)),
        "docs/errors.md": errors_page(),
        "docs/openapi.json": json.dumps(description(), indent=1, ensure_ascii=False) + "\n",
        INTERFACE: interface_page(Home.from_environment().contracts),
    }


def write() -> list[str]:
    """Write the documents; the paths of those that changed."""
    changed = []
    with catalog.fresh_database() as database_url:
        made = pages(database_url)
    for name, text in made.items():
        file = ROOT / name
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            changed.append(name)
    return changed
