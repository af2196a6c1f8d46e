"""Runs that start and stop when their schedule says."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from aggregator_service.rounds.runs import start_run, stop_run
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_run_if_free
from aggregator_service.storage.passing import log_fault
from aggregator_service.storage.tables import RunRow
from hetlora.errors import RefusedError
from hetlora.states import RunState

log = logging.getLogger(__name__)

_GOING_ON = RunState.RUNNING, RunState.PAUSED


def keep_schedules(service: Service) -> None:
    """Start and stop the runs whose time has come; several workers may do it at once."""
    now = service.clock()
    due = or_(
        and_(RunRow.state == RunState.DRAFT, RunRow.starts_at <= now),
        and_(RunRow.state.in_((*_GOING_ON, RunState.DRAFT)), RunRow.stops_at <= now),
    )
    with service.database.read() as session:
        runs = session.scalars(select(RunRow.id).where(due).order_by(RunRow.id)).all()
    for run_id in runs:
        try:
            with service.database.write() as session:
                run = lock_run_if_free(session, run_id)
                if run is not None:
                    _keep(session, run, now)
        except RefusedError as error:  # such as a budget of privacy that is spent: said once
            with service.database.write() as session:
                run = lock_run_if_free(session, run_id)
                if run is not None:
                    run.starts_at, run.reason = None, f"not started by its schedule: {error}"
            log_fault(log, error, "run=%s schedule=refused", run_id)
        except Exception as error:  # of one run: others go on
            service.metrics.worker_failures.inc()
            log_fault(log, error, "run=%s schedule=failed", run_id)


def _keep(session: Session, run: RunRow, now: datetime) -> None:
    """Stop or start a locked run, if it is still in the state for that."""
    if run.stops_at is not None and run.stops_at <= now:
        if run.state in (*_GOING_ON, RunState.DRAFT):
            stop_run(session, run, now, "schedule")
    elif run.state is RunState.DRAFT:
        start_run(session, run, now, "schedule")
