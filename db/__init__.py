"""The memory: tables, queries, and what keeps them consistent."""
