"""The console: pages of a browser over `/management/v1`, for operators."""
