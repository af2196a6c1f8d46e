"""Alembic's entry; the connection comes from `storage/database.py`."""

from __future__ import annotations

from alembic import context

from aggregator_service.storage import (  # their tables are of the metadata, too
    evaluation_tables,  # noqa: F401
    operator_tables,  # noqa: F401
    privacy_tables,  # noqa: F401
    rollout_tables,  # noqa: F401
)
from aggregator_service.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
