"""The streams that are sealed. A further one is an entry here: a table that is only appended to, and its leaves in SQL.

A stream's order key comes from an identity column without a cache, so that a key that was handed out is below every
key that comes after it; ``db.sealing.queries.writers`` relies on that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stream:
    """``entries`` selects ``key``, ``tenant`` (uuid), ``id`` (16 bytes) and ``form`` (text) of the rows with
    ``:after < key <= :until``, the first ``:limit`` of them by key."""

    name: str
    table: str
    key: str
    entries: str


#: The form is ``domain.sealing.records.ledger_form``, made where the rows are: the sealer keeps pace with the postings.
LEDGER = Stream(
    "ledger",
    "ledger_transactions",
    "sequence",
    """
    SELECT t.sequence AS key, t.tenant_id AS tenant, uuid_send(t.transaction_id) AS id, concat(
        'holdfast ledger 1|', t.sequence, '|', t.tenant_id, '|', t.transaction_id, '|', t.leg_count, '|',
        encode(timestamptz_send(t.effective_at), 'hex'), '|', encode(timestamptz_send(t.recorded_at), 'hex'), '|',
        t.escrow_id, '|', t.reverses_id, '|', octet_length(t.kind), ':', t.kind, '|',
        octet_length(t.reference), ':', t.reference, '|', octet_length(t.description), ':', t.description, l.form
    ) AS form
    FROM (
        SELECT * FROM ledger_transactions WHERE sequence > :after AND sequence <= :until ORDER BY sequence LIMIT :limit
    ) AS t
    LEFT JOIN LATERAL (
        SELECT string_agg(concat(
            E'\\n', leg_no, '|', account_id, '|', amount_minor, '|', hold_id, '|',
            octet_length(asset), ':', asset, '|', octet_length(pot), ':', pot
        ), '' ORDER BY leg_no) AS form
        FROM ledger_legs WHERE tenant_id = t.tenant_id AND transaction_id = t.transaction_id
    ) AS l ON true
    """,
)

#: The form is ``domain.sealing.records.attempt_form``: what was sent, before it was, and what was said of it.
ALERTS = Stream(
    "alerts",
    "alert_attempts",
    "sequence",
    """
    SELECT a.sequence AS key, a.tenant_id AS tenant, uuid_send(a.entry_id) AS id, concat(
        'holdfast alert 1|', a.sequence, '|', a.tenant_id, '|', a.entry_id, '|', a.notification_id, '|', a.attempt_id,
        '|', a.delivery, '|', encode(timestamptz_send(a.at), 'hex'), '|',
        encode(timestamptz_send(a.recorded_at), 'hex'), t.texts
    ) AS form
    FROM (
        SELECT * FROM alert_attempts WHERE sequence > :after AND sequence <= :until ORDER BY sequence LIMIT :limit
    ) AS a,
    LATERAL (
        SELECT string_agg(concat('|', octet_length(said), ':', said), '' ORDER BY n) AS texts
        FROM unnest(ARRAY[a.phase, a.channel, a.vendor, a.address, a.subject, a.body, a.html, a.outcome, a.reference,
            a.code, a.detail, a.provider_event]) WITH ORDINALITY AS s (said, n)
    ) AS t
    """,
)

STREAMS: Mapping[str, Stream] = {stream.name: stream for stream in (LEDGER, ALERTS)}
