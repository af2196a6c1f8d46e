"""What a device does: offers, plans, updates on their way in, reports."""
