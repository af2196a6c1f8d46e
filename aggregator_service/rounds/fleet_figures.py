"""Counts of states, asked of the database when Prometheus does: every replica tells the same."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from aggregator_service.observability.single_flight import SingleFlight
from aggregator_service.storage.columns import AbandonedFor
from aggregator_service.storage.database import Database
from aggregator_service.storage.evaluation_tables import EvaluationRow
from aggregator_service.storage.rollout_tables import RolloutRow
from aggregator_service.storage.tables import AssignmentRow, DeviceRow, RoundRow, RunRow, UploadRow
from hetlora.states import AssignmentState, DeviceState, EvaluationState, RolloutState, RoundState, RunState

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 5.0
# Kept for a while, and longer where counting takes long: it has a twentieth of one connection at most.
KEPT_SECONDS: Final = 5.0
KEPT_TIMES: Final = 20

_COUNTED: Final = {
    "devices": (DeviceRow, DeviceState),
    "runs": (RunRow, RunState),
    "rounds": (RoundRow, RoundState),
    "assignments": (AssignmentRow, AssignmentState),
    "evaluations": (EvaluationRow, EvaluationState),
    "rollouts": (RolloutRow, RolloutState),
}


@dataclass(frozen=True, slots=True)
class Counts:
    """How many there are: by state, abandoned rounds by kind of reason, claimed rounds, open uploads."""

    states: dict[str, dict[str, int]]
    abandoned: dict[str, int]
    claimed: int
    uploads: int


class FleetFigures(Collector):
    """The database's counts, its connections, and whether it answers; `timer` counts seconds."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._database, self._clock, self._timer = database, clock, timer
        self._counting = SingleFlight("fleet-figures", self._counts)
        self._kept: Counts | None = None
        self._kept_until = float("-inf")

    def collect(self) -> Iterator[Metric]:
        counts: Counts | None = None
        try:
            counts = self._counting.ask().result(WAIT_SECONDS)
        except Exception as error:  # the figures of the process are wanted all the more
            log.warning("figures=missing error=%s", type(error).__name__)
        yield GaugeMetricFamily("hetlora_database_up", "Whether the database answered.", counts is not None)
        if counts is not None:
            yield from _families(counts)
        yield from self._connections()

    def _counts(self) -> Counts:
        """In a thread of its own, one at a time."""
        began = self._timer()
        with self._database.read() as session:
            session.execute(text("SELECT 1"))
            if self._kept is None or began >= self._kept_until:
                self._kept = _count(session, self._clock())
                ended = self._timer()
                self._kept_until = ended + max(KEPT_SECONDS, KEPT_TIMES * (ended - began))
        return self._kept

    def _connections(self) -> Iterator[Metric]:
        pool = self._database.engine.pool
        assert isinstance(pool, QueuePool)
        told = GaugeMetricFamily(
            "hetlora_database_connections", "Of this process: in use, and idle.", labels=["state"]
        )
        told.add_metric(["in_use"], pool.checkedout())
        told.add_metric(["idle"], pool.checkedin())
        yield told
        yield GaugeMetricFamily(
            "hetlora_database_pool_size", "Connections that this process keeps open at most.", pool.size()
        )


def _count(session: Session, now: datetime) -> Counts:
    states = {}
    for name, (row, kind) in _COUNTED.items():
        found = session.execute(select(row.state, func.count()).group_by(row.state))
        states[name] = {state.value: 0 for state in kind} | {state.value: count for state, count in found}
    abandoned = session.execute(
        select(RoundRow.abandoned_for, func.count())
        .where(RoundRow.abandoned_for.is_not(None))
        .group_by(RoundRow.abandoned_for)
    )
    claimed = select(func.count()).where(
        RoundRow.state == RoundState.AGGREGATING, RoundRow.claimed_until > now
    )
    return Counts(
        states=states,
        abandoned={str(kind): 0 for kind in AbandonedFor} | {str(kind): count for kind, count in abandoned},
        claimed=session.scalar(claimed) or 0,
        uploads=session.scalar(select(func.count()).where(UploadRow.completed.is_(False))) or 0,
    )


def _families(counts: Counts) -> Iterator[Metric]:
    for name, found in counts.states.items():
        yield _by(name, f"{name.capitalize()} by state.", "state", found)
    yield _by("rounds_abandoned", "Abandoned rounds by kind of reason.", "reason", counts.abandoned)
    yield GaugeMetricFamily("hetlora_rounds_claimed", "Rounds that a worker is aggregating.", counts.claimed)
    yield GaugeMetricFamily("hetlora_uploads_open", "Uploads in parts that are not complete.", counts.uploads)


def _by(name: str, meaning: str, label: str, counts: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"hetlora_{name}", meaning, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
