"""What outlives the process: the database and the blob folders."""
