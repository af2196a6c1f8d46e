"""Benchmarks and the demo: one script a question, all of them on the real parts."""
