"""What a pending transfer waits for, as operators read it in the Temporal UI."""

from __future__ import annotations

from domain.money import format_minor
from domain.transfers import PendingTransfer, TransferStatus

_NAME_CHARACTERS_MAX = 40


def summary(transfer: PendingTransfer) -> str:
    """One line: how much goes from whom to whom."""
    return f"{_amount(transfer, transfer.amount_minor)} · {_short(transfer.source)} → {_short(transfer.target)}"


def details(transfer: PendingTransfer, frozen: str | None = None) -> str:
    """Markdown: where it stands, and until when it waits; ``frozen`` is the code of what stops it."""
    lines = [f"**{transfer.status}** · {summary(transfer)}", ""]
    match transfer.status:
        case TransferStatus.PENDING if frozen is not None:
            lines.append(f"- Expired, but **frozen** ({frozen}): the money goes back once the freeze is lifted.")
        case TransferStatus.PENDING:
            until = f"{transfer.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            lines.append(f"- Waits for post or void until **{until}**, then the money goes back.")
        case TransferStatus.POSTED:
            assert transfer.posted_minor is not None, "what is posted has an amount"
            lines.append(f"- {_amount(transfer, transfer.posted_minor)} posted; the rest went back.")
        case TransferStatus.VOIDED | TransferStatus.EXPIRED:
            lines.append("- The money went back.")
    return "\n".join(lines)


def timer_summary(transfer: PendingTransfer) -> str:
    """One line for the timer: what happens when it fires."""
    return f"expiry: {_amount(transfer, transfer.amount_minor)} goes back to {_short(transfer.source)}"


def _amount(transfer: PendingTransfer, minor: int) -> str:
    text = format_minor(minor, transfer.asset.scale)
    shortened = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{shortened} {transfer.asset.symbol}"


def _short(user_id: str) -> str:
    """A user id for a summary: the server refuses summaries above 400 bytes."""
    return user_id if len(user_id) <= _NAME_CHARACTERS_MAX else f"{user_id[: _NAME_CHARACTERS_MAX - 1]}…"
