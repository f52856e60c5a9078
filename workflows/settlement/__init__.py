"""How settlement commands are worked off: their workflow, and the watch over it."""

from activities.settlement.messages import BatchOutcome, SettlementRun
from workflows.settlement.watch import SettlementWatchWorkflow
from workflows.settlement.workflow import SettlementWorkflow

__all__ = ["BatchOutcome", "SettlementRun", "SettlementWatchWorkflow", "SettlementWorkflow"]
