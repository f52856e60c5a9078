"""A whole escrow, played through the HTTP API, told step by step."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

TIMEOUT_SECONDS = 30.0
ASSET = "USDC"


class DemoFailed(Exception):
    """The API answered something that the story does not expect."""


class Desk:
    """The API, as the demo calls it."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str, **query: Any) -> Any:
        """A resource."""
        return self._answer(self._client.get(path, params=query))

    def post(self, path: str, body: Mapping[str, Any], *, key: str | None = None) -> Any:
        """The answer to a command, under an idempotency key."""
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        return self._answer(self._client.post(path, json=body, headers=headers))

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """A resource as it is to be."""
        return self._answer(self._client.put(path, json=body))

    def refused(self, path: str, body: Mapping[str, Any]) -> Any:
        """The problem that a command is refused with."""
        response = self._client.post(path, json=body)
        if response.status_code < 400 or response.status_code >= 500:
            raise DemoFailed(f"POST {path} was expected to be refused and answered {response.status_code}")
        return response.json()

    def _answer(self, response: httpx.Response) -> Any:
        if response.is_error:
            raise DemoFailed(f"{response.request.method} {response.request.url.path}: {response.text}")
        return response.json()


@contextmanager
def connected(api_url: str, api_key: str) -> Iterator[Desk]:
    """The API of a running stack."""
    with httpx.Client(
        base_url=f"{api_url}/api/v1", headers={"X-API-Key": api_key}, timeout=TIMEOUT_SECONDS, trust_env=False
    ) as client:
        yield Desk(client)


def play(desk: Desk, console: Console, temporal_ui_url: str | None) -> None:
    """Open, fund, approve, dispute and settle one escrow, and check that the books balance at the end.

    Raises ``DemoFailed`` where an answer is not what it should be.
    """
    run = secrets.token_hex(3)
    buyer, seller, arbiter = f"alice-{run}", f"bob-{run}", f"judy-{run}"
    step = _steps(console)

    step(f"{buyer} pays 1,000 {ASSET} in")
    desk.post(f"/accounts/{buyer}/deposits", {"asset": ASSET, "amount": "1000", "reference": f"wire-{run}"})
    _balances(desk, console, buyer)

    step("an escrow over two milestones is opened")
    escrow = desk.post("/escrows", _terms(run, buyer, seller, arbiter))
    path = f"/escrows/{escrow['escrow_id']}"
    console.print(f"   {escrow['workflow_id']} is [bold]{escrow['status']}[/]")
    if temporal_ui_url is not None:
        console.print(f"   {temporal_ui_url}/namespaces/default/workflows/{escrow['workflow_id']}", soft_wrap=True)

    step(f"{seller} cannot fund it; the refusal has a stable code")
    console.print(f"   {desk.refused(f'{path}/fund', {'actor': seller})['code']}")

    step(f"{buyer} funds it: 800 and a fee of 1 % are held")
    desk.post(f"{path}/fund", {"actor": buyer})
    _balances(desk, console, buyer)

    step("what it waits for")
    _waits(desk, console, path)

    step(f"{buyer} approves milestone 1 and releases it; the answer to a repeated request is the same")
    desk.post(f"{path}/approvals", {"actor": buyer, "milestones": [1]})
    release, key = {"actor": buyer, "milestones": [1]}, secrets.token_hex(16)
    first = desk.post(f"{path}/release", release, key=key)
    if desk.post(f"{path}/release", release, key=key) != first:
        raise DemoFailed("a repeated request was answered differently")
    _balances(desk, console, buyer, seller)

    step(f"{buyer} disputes milestone 2; {arbiter} gives 200 to {seller} and 300 back")
    desk.post(f"{path}/dispute", {"actor": buyer, "milestones": [2], "reason": "delivered in part"})
    ended = desk.post(f"{path}/resolution", {"actor": arbiter, "to_seller": "200", "to_buyer": "300"})
    console.print(f"   the escrow is [bold]{ended['status']}[/]")
    _balances(desk, console, buyer, seller, "system:fees")

    step("its timeline, from the audit log")
    for entry in desk.get(f"{path}/timeline")["items"]:
        console.print(f"   {entry['at'][:19].replace('T', ' ')}  {entry['action']:<18} {entry['actor'] or ''}")

    step("the books")
    _books(desk, console)


def _terms(run: str, buyer: str, seller: str, arbiter: str) -> dict[str, Any]:
    return {
        "reference": f"demo-{run}",
        "asset": ASSET,
        "buyer": {"user_id": buyer},
        "seller": {"user_id": seller},
        "arbiter": {"user_id": arbiter},
        "milestones": [{"title": "design", "amount": "300"}, {"title": "build", "amount": "500"}],
        "fees": [{"basis_points": 100, "paid_by": "buyer"}, {"basis_points": 50, "paid_by": "seller"}],
        "inspection_period_seconds": 3 * 86_400,
        "expires_at": (datetime.now(UTC) + timedelta(days=30)).isoformat(),
        "actor": buyer,
    }


def _steps(console: Console) -> Any:
    counted = iter(range(1, 100))

    def step(text: str) -> None:
        console.print(f"[bold]{next(counted):>2}.[/] {text}")

    return step


def _balances(desk: Desk, console: Console, *accounts: str) -> None:
    for account in accounts:
        for entry in desk.get(f"/accounts/{account}/balances", asset=ASSET)["items"]:
            console.print(f"   {account:<14} available {entry['available']:>14}   held {entry['held']:>14}")


def _waits(desk: Desk, console: Console, path: str) -> None:
    for wait in desk.get(f"{path}/waiting")["waits"]:
        roles, milestones = " or ".join(wait["roles"]), ", ".join(str(number) for number in wait["milestones"])
        until = f" until {wait['until'][:19]}Z" if wait["until"] else ""
        console.print(f"   milestones {milestones}: {wait['what']} by {roles}{until}")


def _books(desk: Desk, console: Console) -> None:
    found = desk.get("/ledger/trial-balance")
    table = Table("   asset", *(_COLUMNS), box=None, padding=(0, 2), pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for entry in found["items"]:
        table.add_row(f"   {entry['asset']}", *(_short(entry[name]) for name in _COLUMNS))
    console.print(table)
    if not found["balanced"]:
        raise DemoFailed("the ledger does not balance")
    console.print("   [bold green]balanced[/]: everything that came in is with somebody")


def _short(amount: str) -> str:
    """An amount without the zeros that only its scale asks for."""
    return amount.rstrip("0").rstrip(".") if "." in amount else amount


_COLUMNS = ("available", "held", "fees", "external", "difference")
