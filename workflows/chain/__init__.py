"""Chains: the workflows that follow them and fill in what is behind, and the messages that callers send."""

from activities.chain.backfill_messages import BackfillCommand, BackfillRun, BackfillState
from activities.messages import OriginMessage

__all__ = ["BackfillCommand", "BackfillRun", "BackfillState", "OriginMessage"]
