"""Models with an adapter in them, for programs that know nothing of adapters."""
