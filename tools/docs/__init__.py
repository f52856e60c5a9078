"""Documents that are made from the code, so that they cannot drift from it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from kit.build import ROOT
from tools.docs.errors import errors_page
from tools.docs.schema import schema_page


def pages() -> Mapping[str, str]:
    """Every generated document: its path below the root, and its text."""
    # Only this one needs the API, and with it the web framework.
    from api.main import description

    return {
        "docs/schema.md": schema_page(),
        "docs/errors.md": errors_page(),
        "docs/openapi.json": json.dumps(description(), indent=1, ensure_ascii=False) + "\n",
    }


def write() -> list[str]:
    """Write the documents; the paths of those that changed."""
    changed = []
    for name, text in pages().items():
        file = ROOT / name
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            changed.append(name)
    return changed
