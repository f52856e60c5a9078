"""Alerts: who is told what, on which way, how often, until when. Rules only."""
