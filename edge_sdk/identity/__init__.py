"""Who a device is to the service."""
