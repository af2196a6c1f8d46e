"""What a training step costs, read off its graph."""
