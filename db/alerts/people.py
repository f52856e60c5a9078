"""Who can be told, how, and what they wish; and what a tenant decided follows an alert."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.alerts.forms import policy_form, policy_of
from domain.alerts.model import AlertType, Channel, Contact, Person, Policy, Preferences, Severity

_CONTACT = (
    "contact_id, user_id, channel, address, secret, code_hash, code_expires_at, code_guesses, verified_at, removed_at,"
    " recorded_at"
)


@dataclass(frozen=True, slots=True)
class StoredContact:
    """A contact as its row has it."""

    contact: Contact
    secret: bytes | None = field(repr=False)
    code_hash: bytes | None = field(repr=False)
    code_expires_at: datetime | None
    code_guesses: int
    verified_at: datetime | None
    removed_at: datetime | None
    recorded_at: datetime

    @property
    def contact_id(self) -> UUID:
        """Its id, by which lists are paged."""
        return self.contact.contact_id


@dataclass(frozen=True, slots=True)
class Gap:
    """A user who owes and could not be told: without any verified contact, or with one way alone."""

    user_id: str
    verified_channels: list[str]


async def people(connection: AsyncConnection, tenant: UUID, users: Iterable[str]) -> dict[str, Person]:
    """Users with their verified contacts and their wishes."""
    wanted = sorted(set(users))
    rows = await connection.execute(
        text(
            "SELECT contact_id, user_id, channel, address FROM alert_contacts WHERE tenant_id = :tenant"
            " AND user_id = ANY (CAST(:users AS text[])) AND verified_at IS NOT NULL AND removed_at IS NULL"
            " ORDER BY contact_id"
        ),
        {"tenant": tenant, "users": wanted},
    )
    contacts: dict[str, list[Contact]] = {user: [] for user in wanted}
    for row in rows:
        contacts[row.user_id].append(Contact(row.contact_id, row.user_id, Channel(row.channel), row.address))
    wishes = await preferences(connection, tenant, wanted)
    return {user: Person(contacts[user], wishes.get(user, Preferences())) for user in wanted}


async def reachable(connection: AsyncConnection, keys: Iterable[tuple[UUID, str]]) -> set[tuple[UUID, str]]:
    """Those of the tenants' users who have any verified contact."""
    wanted = list(keys)
    rows = await connection.execute(
        text(
            "SELECT k.tenant_id, k.user_id FROM unnest(CAST(:tenants AS uuid[]), CAST(:users AS text[]))"
            " AS k (tenant_id, user_id) WHERE EXISTS (SELECT FROM alert_contacts c WHERE c.tenant_id = k.tenant_id"
            " AND c.user_id = k.user_id AND c.verified_at IS NOT NULL AND c.removed_at IS NULL)"
        ),
        {"tenants": [tenant for tenant, _ in wanted], "users": [user for _, user in wanted]},
    )
    return {(row.tenant_id, row.user_id) for row in rows}


async def preferences(connection: AsyncConnection, tenant: UUID, users: Iterable[str]) -> dict[str, Preferences]:
    """The wishes of those of the users who have any."""
    rows = await connection.execute(
        text(
            "SELECT user_id, locale, time_zone, quiet_from, quiet_to, minimum_severity FROM alert_preferences"
            " WHERE tenant_id = :tenant AND user_id = ANY (CAST(:users AS text[]))"
        ),
        {"tenant": tenant, "users": list(users)},
    )
    return {
        row.user_id: Preferences(
            row.locale, row.time_zone, row.quiet_from, row.quiet_to, Severity(row.minimum_severity)
        )
        for row in rows
    }


async def set_preferences(connection: AsyncConnection, tenant: UUID, user: str, wishes: Preferences) -> None:
    """Write what a user wishes."""
    await connection.execute(
        text(
            "INSERT INTO alert_preferences (tenant_id, user_id, locale, time_zone, quiet_from, quiet_to,"
            " minimum_severity) VALUES (:tenant, :user, :locale, :zone, :from, :to, :minimum)"
            " ON CONFLICT (tenant_id, user_id) DO UPDATE SET locale = excluded.locale,"
            " time_zone = excluded.time_zone, quiet_from = excluded.quiet_from, quiet_to = excluded.quiet_to,"
            " minimum_severity = excluded.minimum_severity"
        ),
        {
            "tenant": tenant,
            "user": user,
            "locale": wishes.locale,
            "zone": wishes.time_zone,
            "from": wishes.quiet_from,
            "to": wishes.quiet_to,
            "minimum": wishes.minimum_severity,
        },
    )


async def policies(connection: AsyncConnection, tenants: Iterable[UUID]) -> dict[tuple[UUID, AlertType], Policy]:
    """What tenants decided, by tenant and type."""
    rows = await connection.execute(
        text(
            "SELECT tenant_id, alert_type, policy FROM alert_policies WHERE tenant_id = ANY (CAST(:tenants AS uuid[]))"
        ),
        {"tenants": sorted(set(tenants))},
    )
    return {(row.tenant_id, AlertType(row.alert_type)): policy_of(row.policy) for row in rows}


async def set_policy(connection: AsyncConnection, tenant: UUID, alert_type: AlertType, policy: Policy | None) -> None:
    """Write what a tenant decided about alerts of a type; None: nothing any more."""
    if policy is None:
        await connection.execute(
            text("DELETE FROM alert_policies WHERE tenant_id = :tenant AND alert_type = :type"),
            {"tenant": tenant, "type": alert_type},
        )
        return
    await connection.execute(
        text(
            "INSERT INTO alert_policies (tenant_id, alert_type, policy) VALUES (:tenant, :type, CAST(:policy AS jsonb))"
            " ON CONFLICT (tenant_id, alert_type) DO UPDATE SET policy = excluded.policy"
        ),
        {"tenant": tenant, "type": alert_type, "policy": json.dumps(policy_form(policy))},
    )


async def add_contact(
    connection: AsyncConnection,
    tenant: UUID,
    contact: Contact,
    *,
    secret: bytes | None,
    code_hash: bytes,
    code_expires_at: datetime,
) -> bool:
    """Write a contact that is not verified yet; False when its user has it already."""
    done = await connection.execute(
        text(
            "INSERT INTO alert_contacts (tenant_id, contact_id, user_id, channel, address, secret, code_hash,"
            " code_expires_at) VALUES (:tenant, :id, :user, :channel, :address, :secret, :hash, :expires)"
            " ON CONFLICT DO NOTHING RETURNING contact_id"
        ),
        {
            "tenant": tenant,
            "id": contact.contact_id,
            "user": contact.user_id,
            "channel": contact.channel,
            "address": contact.address,
            "secret": secret,
            "hash": code_hash,
            "expires": code_expires_at,
        },
    )
    return done.one_or_none() is not None


async def find_contact(
    connection: AsyncConnection, tenant: UUID, contact_id: UUID, *, lock: bool = False
) -> StoredContact | None:
    """The contact with this id, also one that was removed."""
    rows = await connection.execute(
        text(
            f"SELECT {_CONTACT} FROM alert_contacts WHERE tenant_id = :tenant AND contact_id = :id"
            + (" FOR UPDATE" if lock else "")
        ),
        {"tenant": tenant, "id": contact_id},
    )
    row = rows.one_or_none()
    return None if row is None else _contact(row)


async def list_contacts(
    connection: AsyncConnection, tenant: UUID, *, user: str | None, before: UUID | None, limit: int
) -> list[StoredContact]:
    """Up to ``limit`` contacts that were not removed, of one user or of all, the newest first."""
    rows = await connection.execute(
        text(
            f"SELECT {_CONTACT} FROM alert_contacts WHERE tenant_id = :tenant AND removed_at IS NULL"
            " AND (CAST(:user AS text) IS NULL OR user_id = :user)"
            " AND (CAST(:before AS uuid) IS NULL OR contact_id < :before) ORDER BY contact_id DESC LIMIT :limit"
        ),
        {"tenant": tenant, "user": user, "before": before, "limit": limit},
    )
    return [_contact(row) for row in rows]


async def change_contact(connection: AsyncConnection, tenant: UUID, contact_id: UUID, **changes: Any) -> None:
    """Set columns of a contact; the names are ours."""
    sets = ", ".join(f"{name} = :{name}" for name in changes)
    await connection.execute(
        text(f"UPDATE alert_contacts SET {sets} WHERE tenant_id = :tenant AND contact_id = :id"),
        {"tenant": tenant, "id": contact_id, **changes},
    )


async def of_number(connection: AsyncConnection, number: str) -> list[tuple[UUID, UUID]]:
    """Tenant and contact of a telephone number, before its tenant is known."""
    rows = await connection.execute(
        text("SELECT tenant_id, contact_id FROM find_alert_number(:number)"), {"number": number}
    )
    return [(row.tenant_id, row.contact_id) for row in rows]


async def gaps(connection: AsyncConnection, tenant: UUID, *, after: str, limit: int) -> list[Gap]:
    """Users behind ``after`` who owe something and have fewer than two verified channels, by name."""
    rows = await connection.execute(
        text(
            """
            SELECT a.user_id, coalesce(array_agg(DISTINCT c.channel) FILTER (WHERE c.channel IS NOT NULL), '{}')
                AS channels
            FROM margin_accounts a
            LEFT JOIN alert_contacts c ON c.tenant_id = a.tenant_id AND c.user_id = a.user_id
                AND c.verified_at IS NOT NULL AND c.removed_at IS NULL
            WHERE a.tenant_id = :tenant AND a.user_id > :after AND EXISTS (
                SELECT FROM margin_positions p
                WHERE p.tenant_id = a.tenant_id AND p.account_no = a.account_no AND p.side = 'borrow'
            )
            GROUP BY a.user_id HAVING count(DISTINCT c.channel) < 2 ORDER BY a.user_id LIMIT :limit
            """
        ),
        {"tenant": tenant, "after": after, "limit": limit},
    )
    return [Gap(row.user_id, sorted(row.channels)) for row in rows]


def _contact(row: Any) -> StoredContact:
    return StoredContact(
        Contact(row.contact_id, row.user_id, Channel(row.channel), row.address),
        None if row.secret is None else bytes(row.secret),
        None if row.code_hash is None else bytes(row.code_hash),
        row.code_expires_at,
        row.code_guesses,
        row.verified_at,
        row.removed_at,
        row.recorded_at,
    )
