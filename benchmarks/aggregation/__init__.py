"""`hetlora bench aggregation`: what each process of it does, and what the figures are made of."""
