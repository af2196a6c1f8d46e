"""A visit to the service, and the work that it may bring."""
