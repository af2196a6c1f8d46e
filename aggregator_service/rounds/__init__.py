"""Runs and their rounds, from the first offer to the last commit."""
