"""The memory of reconciliation: a second book of sums, pages of figures to compare, runs and their findings."""
