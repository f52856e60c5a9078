"""Steps of transfers in two phases and of chains, and the messages that ask for them."""
