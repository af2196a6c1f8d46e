"""Who a device is, how it joins, and what it may ask."""
