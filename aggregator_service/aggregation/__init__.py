"""Arithmetic of aggregation: numpy in, numpy out; no database, no HTTP, no clock."""
