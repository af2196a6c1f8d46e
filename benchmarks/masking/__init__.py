"""What secure aggregation costs, for `bench_masking.py`."""
