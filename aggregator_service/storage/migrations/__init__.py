"""Alembic's steps from an empty database to `tables.py`; run at each start."""
