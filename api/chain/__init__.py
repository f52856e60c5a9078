"""Chains: what is followed there, how far, what was seen, and whether all is well."""

from api.chain import commands, events, health, registering, relayers

#: Fixed names before ids.
ROUTERS = (health.routes, events.routes, registering.routes, relayers.routes, commands.routes)
