"""What is done without being asked: leases, aggregation, commits, sweeping."""
