"""benchmarks/README.md out of the result files: `python -m benchmarks.report`."""
