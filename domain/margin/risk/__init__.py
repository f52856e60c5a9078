"""What may become of an account: past days and past crashes replayed, concentration, time to liquidation.

Amounts are exact integers in 1e-8 USD and are rounded once, against the user. Logarithms and probabilities are floats;
they live in ``chances`` alone and never become an amount. ``docs/risk.md`` has the formulas and their sources.
"""

from domain.margin.risk.chances import Chance
from domain.margin.risk.concentration import Concentration, Share, concentration
from domain.margin.risk.history import (
    CONFIDENCE_SCALE,
    Observation,
    Simulation,
    Window,
    observations,
    required_observations,
    simulate,
)
from domain.margin.risk.outlook import FEWEST_RETURNS, YEAR_DAYS, Carry, carry, chance
from domain.margin.risk.scenarios import MOVE_SCALE, SCENARIOS, Measure, Move, Scenario, Source
from domain.margin.risk.stress import Outcome, stress

__all__ = [
    "CONFIDENCE_SCALE",
    "FEWEST_RETURNS",
    "MOVE_SCALE",
    "SCENARIOS",
    "YEAR_DAYS",
    "Carry",
    "Chance",
    "Concentration",
    "Measure",
    "Move",
    "Observation",
    "Outcome",
    "Scenario",
    "Share",
    "Simulation",
    "Source",
    "Window",
    "carry",
    "chance",
    "concentration",
    "observations",
    "required_observations",
    "simulate",
    "stress",
]
