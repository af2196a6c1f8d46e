"""The round worker: one thread that wakes on an event, or every second, and brings rounds on."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime

from aggregator_service.observability.log_context import work
from aggregator_service.rollouts import settling
from aggregator_service.rounds import closing, evaluations
from aggregator_service.rounds.schedules import keep_schedules
from aggregator_service.screens.suspensions import judge_devices
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_rollout_if_free, lock_run_if_free
from aggregator_service.storage.passing import log_fault
from aggregator_service.worker.claims import claim, free_abandoned, held
from aggregator_service.worker.commit import commit_round
from aggregator_service.worker.steps import commit_of
from aggregator_service.worker.sweep import sweep

log = logging.getLogger(__name__)

SWEEP_SECONDS = 60.0


class Worker:
    """Runs `tick` until stopped. All it knows is in the database, so a restarted one goes on where it was."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stopping = threading.Event()
        self.ticked_at: datetime | None = None  # when it last looked for work
        # A daemon: a stopping process does not wait for a long aggregation, which the next one goes on with.
        self._thread = threading.Thread(target=self._run, name="round-worker", daemon=True)

    def start(self) -> None:
        free_abandoned(self._service)
        self._service.wake.set()  # what the last process left is brought on at once
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread still runs; without it no lease ends and no round commits."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask the thread to end and wait a while for it."""
        self._stopping.set()
        self._service.wake.set()
        self._thread.join(timeout=self._service.settings.shutdown_seconds)

    def _run(self) -> None:
        swept_at = float("-inf")
        while True:
            try:
                self._service.wake.wait(self._service.settings.worker_interval_seconds)
                self._service.wake.clear()
                if self._stopping.is_set():
                    return
                tick(self._service)
                self.ticked_at = self._service.clock()
                self._service.metrics.ticks.inc()
                self._service.metrics.last_tick.set(self.ticked_at.timestamp())
                if time.monotonic() - swept_at >= SWEEP_SECONDS:
                    swept_at = time.monotonic()
                    sweep(self._service)
            except Exception as error:
                self._service.metrics.worker_failures.inc()
                retry_seconds = self._service.settings.worker_interval_seconds
                log_fault(log, error, "worker=failed retry_seconds=%s", retry_seconds)


def tick(service: Service) -> None:
    """Expire leases, close windows, commit every round that waits and that no other worker holds, and suspend
    devices that their population's rule is against.
    """
    keep_schedules(service)
    _settle_due(service)
    _settle_rollouts(service)
    tried: set[str] = set()
    while (round_id := claim(service, tried)) is not None:
        tried.add(round_id)
        with held(service, round_id):
            try:
                with commit_of(service, round_id):
                    commit_round(service, round_id)
            except Exception as error:  # such as a full disk: the round stays for the next tick, others go on
                service.metrics.commits.labels("failed").inc()
                log_fault(log, error, "round=%s commit=failed", round_id)
    judge_devices(service)


def _settle_due(service: Service) -> None:
    """Bring every run up to the present that is behind it; several workers may do it at once."""
    now = service.clock()
    with service.database.read() as session:
        runs = closing.all_due(session, now) | evaluations.all_due(session, now)
    for run_id in sorted(runs):
        try:
            with (
                work(),
                service.tracing.span("settle run", {"hetlora.run": run_id}),
                service.database.write() as session,
            ):
                # Whoever is at work on it settles it, too, or the next tick does.
                run = lock_run_if_free(session, run_id)
                if run is not None:
                    closing.settle(session, run, now)
                    evaluations.settle(session, run, now)
        except Exception as error:  # of one run: others go on
            service.metrics.worker_failures.inc()
            log_fault(log, error, "run=%s settle=failed", run_id)


def _settle_rollouts(service: Service) -> None:
    """Move rollouts on, or back, as their devices' reports ask for; several workers may do it at once."""
    now = service.clock()
    with service.database.read() as session:
        under_way = settling.all_under_way(session)
    for rollout_id in under_way:
        try:
            with work(), service.database.write() as session:
                row = lock_rollout_if_free(session, rollout_id)
                if row is not None:
                    settling.settle(session, row, now)
        except Exception as error:  # of one rollout: others go on
            service.metrics.worker_failures.inc()
            log_fault(log, error, "rollout=%s settle=failed", rollout_id)
