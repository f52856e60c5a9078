"""The sealer, and the checkpoints that it writes outside the database."""
