"""Adapters that rounds left on the device: kept, adopted, answered under."""
