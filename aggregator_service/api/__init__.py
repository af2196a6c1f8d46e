"""HTTP: who asks, how much they send, and which verb of the service answers."""
