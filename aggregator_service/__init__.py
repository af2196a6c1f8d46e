"""The aggregation service: it offers rounds to devices and merges what they learned."""
