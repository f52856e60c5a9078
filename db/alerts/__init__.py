"""Alerts in the database: who is told, what was told, and every attempt with what came of it."""
