"""A database as large fleets leave it, and what the console's pages take over it, for `bench_console.py`."""
