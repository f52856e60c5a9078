"""Webhooks: the workflow of an endpoint, and the messages that callers send."""

from activities.webhooks.messages import TakeTurn, TurnDone, WebhookRun
from workflows.webhooks.workflow import WebhookWatchWorkflow, WebhookWorkflow

__all__ = ["TakeTurn", "TurnDone", "WebhookRun", "WebhookWatchWorkflow", "WebhookWorkflow"]
