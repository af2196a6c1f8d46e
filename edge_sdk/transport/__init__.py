"""The line to the service: requests, downloads, uploads."""
