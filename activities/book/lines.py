"""What a transition writes, as lines of COPY: what all accounts of a tick share is put into words once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import Final
from uuid import UUID

from db.margin.book import Move, Telling
from db.outbox import MARGIN_TOPIC
from domain.ids import uuid7
from domain.margin.advice import hold, main_recommendations
from domain.margin.health import Valuation
from domain.margin.model import Levels, Position
from domain.margin.rows import Sheet, ratio, said, subject_of
from domain.margin.telling import Raised

CAUSE: Final = "tick"
#: Transitions whose chance is drawn at a time, and the hexadecimal digits that each takes.
_DRAWN, _DIGITS = 1_024, 38
#: The two fixed bits of a UUID's variant, the rest by chance.
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class Lines:
    """Puts the transitions of one sheet into lines: fields between tabs, in the order of ``SnapshotRow``, ``EventRow``
    and ``db.margin.book.OUTBOX``. A field that is empty is null; nothing is escaped yet."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        stamp = uuid7(sheet.at, bytes(10)).hex
        self._stamp = f"{stamp[:8]}-{stamp[8:12]}-7"
        self._chance: Iterator[str] = iter(())
        self._tenants: dict[UUID, str] = {}
        at = sheet.at.isoformat()
        self._snapshot_end = f"{sheet.parameter_version}\t{sheet.price_tick}\t{CAUSE}\t{at}"
        self._occurred = f"{at}\t"

    def telling(
        self,
        move: Move,
        tenant: UUID,
        user: str,
        previous: int | None,
        positions: Sequence[Position],
        valuation: Valuation,
        levels: Levels,
        raised: Raised,
    ) -> Telling:
        """Everything that one account's transition writes. ``previous`` is the health (1e-18) that it had."""
        sheet = self._sheet
        held = hold(positions, sheet.market)
        advised = main_recommendations(held, valuation, levels)
        health, status, owns, owes, collateral, borrow, drop, advice, may = sheet.findings(
            positions, held, valuation, levels, advised
        )
        whose = self._tenants.get(tenant)
        if whose is None:
            whose = self._tenants[tenant] = str(tenant)
        snapshot_id, event_id = self._ids()
        kind, severity, _, _ = raised
        threshold, message = said(raised, health)
        now = f'"{health}"' if health is not None else "null"
        text = health or ""
        if previous is None:
            before, then = "", "null"
        else:
            before = ratio(previous) or ""
            then = f'"{before}"'
        return Telling(
            move,
            tenant,
            kind.value,
            f"{whose}\t{snapshot_id}\t{user}\t{text}\t{before}\t{status}\t{owns}\t{owes}\t{collateral}\t{borrow}\t"
            f"{drop or ''}\t{advice}\t{may}\t{self._snapshot_end}",
            f"{whose}\t{event_id}\t{snapshot_id}\t{user}\t{kind.value}\t{severity.value}\t{text}\t{before}\t"
            f"{threshold}\t{message}\t{advice}\t{owns}\t{owes}",
            f"{whose}\t{event_id}\t{MARGIN_TOPIC}\t{kind.value}\t{subject_of(user)}\t{self._occurred}"
            f'{{"user_id":{quoted(user)},"severity":"{severity.value}","status":"{status}","health_score":{now},'
            f'"previous_health_score":{then},"threshold_breached":"{threshold}","message":"{message}",'
            f'"collateral_usd":"{owns}","borrow_usd":"{owes}","recommendations":{advice},'
            f'"snapshot_id":"{snapshot_id}",{sheet.shared}}}',
        )

    def _ids(self) -> tuple[str, str]:
        """Two UUIDv7 of the sheet's instant; chance comes by the thousand."""
        drawn = next(self._chance, None)
        if drawn is None:
            digits = os.urandom(_DRAWN * _DIGITS // 2).hex()
            self._chance = iter([digits[begin : begin + _DIGITS] for begin in range(0, len(digits), _DIGITS)])
            drawn = next(self._chance)
        stamp = self._stamp
        return (
            f"{stamp}{drawn[:3]}-{_VARIANT[drawn[3]]}{drawn[4:7]}-{drawn[7:19]}",
            f"{stamp}{drawn[19:22]}-{_VARIANT[drawn[22]]}{drawn[23:26]}-{drawn[26:]}",
        )
