"""Margin checks: their workflow, and the messages that callers send."""

from activities.margin.messages import Cause, CheckMargin, CheckOutcome, LevelsMessage, PositionMessage
from activities.messages import OriginMessage
from workflows.margin.workflow import MarginCheckWorkflow

__all__ = [
    "Cause",
    "CheckMargin",
    "CheckOutcome",
    "LevelsMessage",
    "MarginCheckWorkflow",
    "OriginMessage",
    "PositionMessage",
]
