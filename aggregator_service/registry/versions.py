"""Adapter versions, found by their name."""

from __future__ import annotations

from sqlalchemy.orm import Session

from aggregator_service.storage.tables import AdapterVersionRow, RunRow
from hetlora.errors import NotFound


def get_version(session: Session, version: str) -> AdapterVersionRow:
    """An adapter version.

    Raises:
        NotFound: no such version.
    """
    row = session.get(AdapterVersionRow, version)
    if row is None:
        raise NotFound("no such adapter version", got=version)
    return row


def population_of(session: Session, row: AdapterVersionRow) -> str:
    """The population whose devices trained a version."""
    return session.get_one(RunRow, row.run_id).population
