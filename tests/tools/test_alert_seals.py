"""`ledger verify --stream alerts`: what was said is as it was sealed, or the first row that is not is named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from db.alerts import attempts, notifications
from db.alerts.attempts import Entry, Phase
from db.engine import tenant_transaction
from db.ids import new_id
from db.sealing.streams import ALERTS
from domain.alerts.model import Channel
from kit.clock import now
from tests.databases import migrated_database
from tests.domain.alerts import alert
from tests.seals import Vault, open_vault
from tools.local.postgres import EmbeddedPostgres
from tools.seals.findings import Finding
from tools.seals.verify import Report, verify


@pytest.fixture
def url(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated_database(postgres) as made:
        yield made


@pytest.fixture
async def vault(url: str, tmp_path: Path) -> AsyncIterator[Vault]:
    """Seven rows of the log, sealed and signed; and a posting, which is another stream."""
    async with open_vault(url, tmp_path) as made:
        told = alert(tenant_id=made.tenant, notification_id=new_id())
        async with tenant_transaction(made.app, made.tenant) as connection:
            await notifications.add(connection, [(told, bytes(32))])
            for number in range(7):
                begun = Entry(
                    new_id(),
                    told.notification_id,
                    Phase.BEGUN,
                    1,
                    now(),
                    attempt_id=new_id(),
                    channel=Channel.EMAIL,
                    body=f"text {number} – ünïcode",
                )
                await attempts.append(connection, made.tenant, [begun])
        await made.deposit(5)
        while await made.sealer.seal(ALERTS):
            pass
        assert await made.sealer.checkpoint(ALERTS)
        yield made


def check(vault: Vault) -> Report:
    return verify(vault.url, directories=[vault.signer.directory], keys=[vault.key.public], stream="alerts")


async def test_a_log_that_nobody_touched(vault: Vault) -> None:
    report = check(vault)
    assert (report.entries, report.batches, report.checkpoints, report.unsealed) == (7, 2, 1, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE alert_attempts SET body = 'another' WHERE sequence = 3", "sequence 3, entry .* edited"),
        ("UPDATE alert_attempts SET at = at - interval '1 hour' WHERE sequence = 5", "sequence 5, entry .* edited"),
        ("DELETE FROM alert_attempts WHERE sequence = 2", "sequence 2, entry .* dropped"),
        ("DELETE FROM alert_attempts WHERE sequence = 7", "sequence 7, entry .* dropped"),
    ],
)
async def test_what_was_changed_is_named(vault: Vault, change: str, said: str) -> None:
    vault.tamper(change)
    with pytest.raises(Finding, match=said):
        check(vault)
