"""The margin book: every account in columns, revalued at each tick of prices."""
