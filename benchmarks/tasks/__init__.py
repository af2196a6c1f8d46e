"""Learning problems on real data: who holds which examples, and how good an adapter is."""
