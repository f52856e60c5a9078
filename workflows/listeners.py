"""Which events start or wake workflows: an entry a type, a pure function of the event."""

from __future__ import annotations

from collections.abc import Mapping

from activities.dispatch import Listener, TenantEvent, Wake

__all__ = ["LISTENERS", "Listener", "TenantEvent", "Wake"]

LISTENERS: Mapping[str, Listener] = {}
