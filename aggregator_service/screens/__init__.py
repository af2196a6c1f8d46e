"""What becomes of updates that do not pass a screen, and of their devices."""
