"""A service of several processes, under load and under faults, and the devices that ask it."""
