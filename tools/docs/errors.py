"""`docs/errors.md`: every code with which the system refuses, its HTTP status and its meaning."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from api.problems import FIELD_CODES, status_of
from domain import controls, escrow, identity, ledger, money, settlement, transfers
from domain.alerts import codes as alert_codes
from domain.chain import codes as chain_codes
from domain.margin import codes as margin_codes
from domain.webhooks import codes as webhook_codes
from kit.build import ROOT

ROOMS = ("domain", "db", "activities", "workflows", "api")

_HEAD = """# Error codes

Made by `python -m tools docs`. An error is an [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem; branch on its
`code`. A problem about the input names the inputs at fault in `errors`, each with a code of its own. Codes are for
ever, wording may improve.

| status | code | meaning |
|--:|---|---|
"""

_FIELDS = """
## Inputs

Each entry of `errors` under `input_invalid` has one of these codes; under another code it repeats that code.

| code | meaning |
|---|---|
"""

#: What the API says of itself, or says with details that a table has no place for.
_PROTOCOL = {
    "already_reversed": "another transaction took this one back before",
    "asset_unknown": "there is no such asset; `GET /api/v1/assets` lists them",
    "body_invalid": "the body is not JSON: broken, not UTF-8, or with numbers that are not finite",
    "body_too_large": "the body is larger than 1 MiB",
    "fee_repeated": "at most one fee per payer",
    "idempotency_key_in_flight": "a request with this idempotency key is being worked on",
    "idempotency_key_reused": "this idempotency key came with another request before",
    "chain_unhealthy": "`GET /chain/health` alone: `errors` names each relayer that is not well, and why",
    "effective_from_taken": "another version of the margin parameters takes effect at that instant",
    "price_invalid": "a supposed price is a decimal above zero with at most 18 places",
    "ratio_too_fine": "a level or a share has at most 4 decimal places",
    "reference_taken": "the reference names something with other content",
    "tenant_name_taken": "there is a tenant of this name already",
    "key_missing": "no API key came with the request",
    "input_invalid": "inputs are missing, unknown or malformed; `errors` names each, with a code of its own",
    "internal_error": "a bug; the request id finds it in the logs",
    "method_not_allowed": "the path exists, but not with this method",
    "not_found": "there is nothing at this path, or nothing that this key may see",
    "not_ready": "`/readyz` alone: `errors` names what does not answer",
    "request_invalid": "the request is no HTTP that this API understands",
    "unavailable": "something that we depend on does not answer; the same request may be sent again",
}
_PROTOCOL_STATUS = {
    "internal_error": 500,
    "method_not_allowed": 405,
    "not_ready": 503,
    "request_invalid": 400,
    "chain_unhealthy": 503,
    "unavailable": 503,
}


def errors_page() -> str:
    """The page as it is committed."""
    rows = sorted((_PROTOCOL_STATUS.get(code, status_of(code)), code, meaning) for code, meaning in codes().items())
    table = "".join(f"| {status} | `{code}` | {meaning} |\n" for status, code, meaning in rows)
    return _HEAD + table + _FIELDS + "".join(f"| `{code}` | {text} |\n" for code, text in sorted(FIELD_CODES.items()))


def codes() -> Mapping[str, str]:
    """Every code and what it means: the rules' own tables first, then what the other rooms raise."""
    ruled: dict[str, list[str]] = {}
    for table in (
        money.CODES,
        ledger.CODES,
        identity.CODES,
        escrow.CODES,
        transfers.CODES,
        controls.CODES,
        settlement.CODES,
        margin_codes.CODES,
        alert_codes.CODES,
        chain_codes.CODES,
        webhook_codes.CODES,
    ):
        for code, meaning in table.items():
            said = ruled.setdefault(code, [])
            if not any(meaning in other for other in said):
                said[:] = [*(other for other in said if other not in meaning), meaning]
    return dict(_raised()) | _PROTOCOL | {code: "; ".join(said) for code, said in ruled.items()}


def _raised() -> Iterator[tuple[str, str]]:
    """Literal codes of refusals in the source, with their messages."""
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refusal":
                    code = node.args[0] if node.args else None
                    if isinstance(code, ast.Constant) and len(node.args) > 1:
                        yield str(code.value), _text(node.args[1])


def _text(node: ast.expr) -> str:
    """A message as a reader sees it, with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "…"
