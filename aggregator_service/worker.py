"""The round worker: one thread that wakes on an event, or every second, and brings rounds on."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from datetime import timedelta

from sqlalchemy import delete, select

from aggregator_service.commit import commit_round
from aggregator_service.handouts import drop_drawn
from aggregator_service.rounds import settle
from aggregator_service.service import Service
from aggregator_service.storage.tables import NonceRow, RoundRow
from hetlora.states import RoundState

log = logging.getLogger(__name__)

SWEEP_SECONDS = 60.0


class Worker:
    """Runs `tick` until stopped. All it knows is in the database, so a restarted one goes on where it was."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stopping = threading.Event()
        # A daemon: a stopping process does not wait for a long aggregation, which the next one repeats.
        self._thread = threading.Thread(target=self._run, name="round-worker", daemon=True)

    def start(self) -> None:
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
                if time.monotonic() - swept_at >= SWEEP_SECONDS:
                    swept_at = time.monotonic()
                    sweep(self._service)
            except Exception:
                log.exception(
                    "worker=failed retry_seconds=%s", self._service.settings.worker_interval_seconds
                )


def tick(service: Service) -> None:
    """Expire leases, close report windows, commit every round that is ready."""
    with service.database.write() as session:
        settle(session, service.clock())
    with service.database.read() as session:
        ready = session.scalars(select(RoundRow.id).where(RoundRow.state == RoundState.AGGREGATING)).all()
    for round_id in ready:
        try:
            commit_round(service, round_id)
        except Exception:  # such as a full disk: the round stays as it is for the next tick, the others go on
            log.exception("round=%s commit=failed", round_id)


def sweep(service: Service) -> None:
    """Drop nonces too old to matter; of rounds ended long ago the updates, and what was drawn for one."""
    now = service.clock()
    with service.database.write() as session:
        session.execute(delete(NonceRow).where(NonceRow.expires_at < now))
    with service.database.read() as session:
        for folder in service.updates_folder.iterdir():
            row = session.get(RoundRow, folder.name)
            kept = timedelta(seconds=service.settings.keep_updates_seconds)
            if row is not None and row.ended_at is not None and row.ended_at + kept <= now:
                drop_drawn(service, row.id)
                shutil.rmtree(folder)
                log.info("round=%s updates=removed", row.id)
