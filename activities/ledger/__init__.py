"""Steps of the ledger and the messages that ask for them."""
