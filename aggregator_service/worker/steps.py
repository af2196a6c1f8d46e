"""A round on its way to its commit, as spans, figures and lines tell of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from aggregator_service.observability.log_context import work
from aggregator_service.service import Service
from aggregator_service.storage.tables import RoundRow

Step = Literal["read", "screen", "aggregate", "store", "write"]


@contextmanager
def commit_of(service: Service, round_id: str) -> Iterator[None]:
    """Around the commit of a round: its span is linked to that of the request that met the goal."""
    with service.database.read() as session:
        row = session.get_one(RoundRow, round_id)
    with (
        work(run=row.run_id, round=round_id),
        service.tracing.span(
            "commit round", {"hetlora.run": row.run_id, "hetlora.round": round_id}, link=row.traceparent
        ),
    ):
        yield


@contextmanager
def step(service: Service, name: Step) -> Iterator[None]:
    """Around one step of a commit."""
    with service.metrics.commit_step_seconds.labels(name).time(), service.tracing.span(name):
        yield
