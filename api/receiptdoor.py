"""With what vendors' receipts are checked, and how many were taken and refused."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter

from domain.errors import Refusal


class ReceiptMetrics:
    """What came of receipts in this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.taken = Counter(
            "holdfast_receipts", "Receipts of vendors by what became of them", ["vendor", "became"], registry=registry
        )


@dataclass(frozen=True, slots=True)
class ReceiptDoor:
    """With what receipts are checked; without a vendor's key none of its receipts is taken. ``public_url`` is where the
    vendor believes us to be, for it signs the address too."""

    public_url: str
    sendgrid_key: str | None = field(repr=False)
    twilio_token: str | None = field(repr=False)
    metrics: ReceiptMetrics

    def refuse(self, vendor: str) -> Refusal:
        """Count a receipt that nobody signed."""
        self.metrics.taken.labels(vendor, "refused").inc()
        return Refusal("signature_invalid", f"this is not signed by {vendor} with the key of the settings")
