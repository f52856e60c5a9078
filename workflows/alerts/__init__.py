"""Alerts: their workflow, and the messages that callers send."""

from activities.alerts.messages import AcknowledgeAlert, AlertOutcome, AlertRun
from activities.messages import OriginMessage
from workflows.alerts.workflow import AlertWorkflow

__all__ = ["AcknowledgeAlert", "AlertOutcome", "AlertRun", "AlertWorkflow", "OriginMessage"]
