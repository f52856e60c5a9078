"""The floor: settings, logs, the clock, the Temporal client."""
