"""Who operates the service: keys, roles, and what they did."""
