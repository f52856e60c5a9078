"""What is sealed, and the seals: streams, batches and checkpoints."""
