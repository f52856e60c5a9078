"""Steps of margin: the check of one account, and what it writes."""
