"""The text that the demo and the benchmarks train on: the standard library's, or the user's own."""
