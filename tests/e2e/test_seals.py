"""Seals of a whole stack: made while it runs, checked while it is down."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.e2e.stack import CommandLine, post, running
from tools.local.postgres import EmbeddedPostgres
from tools.local.process import wait_until

pytestmark = pytest.mark.timeout(300)


def test_the_ledger_is_verified_while_nothing_runs(tmp_path: Path) -> None:
    stack = CommandLine(tmp_path / "home", CHECKPOINT_SECONDS="1")
    with running(stack):
        with stack.http() as client:
            made = [post(client, "accounts/alice/deposits", {"asset": "USDC", "amount": "5"}) for _ in range(3)]
            path = f"/api/v1/ledger/transactions/{made[-1]['transaction_id']}/proof"
            assert wait_until(lambda: client.get(path).status_code == 200, limit_seconds=60, pause_seconds=0.2)
        assert "the ledger is as it was sealed" in stack.run("ledger", "verify")
        assert stack.home.seal_key_file.stat().st_mode & 0o777 == 0o600
    assert stack.nothing_runs()
    assert "0 entries not sealed" in stack.run("ledger", "verify")
    with EmbeddedPostgres(stack.home.postgres_data) as server, psycopg.connect(server.url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE ledger_transactions SET reference = 'other' WHERE sequence = 2")
    told = stack.run("ledger", "verify", status=1)
    assert f"sequence 2, transaction {made[1]['transaction_id']} of tenant" in told
    assert stack.nothing_runs()
