"""Steps of reconciliation and the messages that ask for them."""
