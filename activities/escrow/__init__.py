"""Steps of an escrow and the messages that ask for them."""
