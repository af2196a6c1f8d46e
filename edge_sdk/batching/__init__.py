"""From examples to batches of arrays."""
