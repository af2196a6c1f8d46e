"""When devices come back."""
