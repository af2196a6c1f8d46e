"""The arithmetic of secure aggregation, for devices and the service alike (docs/adr/0040)."""
