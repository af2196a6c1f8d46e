"""What whoever reads the database would read."""

from __future__ import annotations

from sqlalchemy import select

from aggregator_service.service import Service
from aggregator_service.storage.tables import Base


def every_value(service: Service) -> str:
    """Every value of every row, as text."""
    with service.database.read() as session:
        rows = [row for table in Base.metadata.sorted_tables for row in session.execute(select(table))]
    assert rows
    return "\n".join(str(row) for row in rows)
