"""What operators know of adapter versions: names that they give them, notes, and where they came from."""
