"""Differential privacy of a population: its budget, and the ledger of what rounds spent."""
