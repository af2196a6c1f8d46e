"""A fleet of virtual devices, on a virtual clock, against the service's own code."""
