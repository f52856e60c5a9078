"""The steps of prices: ask sources, make one price of what they say, keep the months' partitions ahead."""
