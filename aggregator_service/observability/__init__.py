"""What a process tells of itself: figures, lines and spans."""
