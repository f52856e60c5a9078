"""Steps that work settlement commands off, and the messages that ask for them."""
