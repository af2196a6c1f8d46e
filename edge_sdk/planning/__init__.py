"""What a device can afford."""
