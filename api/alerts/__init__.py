"""Alerts over HTTP: what was told to whom, who can be told and how, and what vendors say of it."""

from api.alerts import alerts, configuration, contacts, links, proofs, receipts

#: Those with names of their own come before those whose path begins with an alert's id.
ROUTERS = (
    contacts.routes,
    configuration.routes,
    receipts.routes,
    proofs.checkpoint_routes,
    alerts.routes,
    proofs.routes,
    links.routes,
)

__all__ = ["ROUTERS"]
