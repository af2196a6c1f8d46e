"""What the worker says of faults that come each second."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import InternalError, OperationalError

from aggregator_service.service import Service
from aggregator_service.storage.database import make_engine
from aggregator_service.worker.worker import Worker

TRIES = 3


def full_disk() -> Exception:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def refused_by(url: str) -> Exception:
    """What the driver says of a database that is not there."""
    engine = make_engine(make_url(url), timeout_seconds=2, connections=2)
    try:
        with pytest.raises(OperationalError) as caught:
            engine.connect()
        return caught.value
    finally:
        engine.dispose()


def failing(service: Service, error: Exception) -> Worker:
    """A worker that meets the same fault whenever it looks for work."""

    def clock() -> datetime:
        if threading.current_thread().name == "round-worker":
            raise error
        return service.clock()

    return Worker(replace(service, clock=clock))


def faults_told(worker: Worker, caplog: pytest.LogCaptureFixture) -> list[tuple[str, bool]]:
    """The lines of the first faults, each with whether it has a traceback."""
    worker.start()
    deadline = time.monotonic() + 10
    while len(caplog.records) < TRIES:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.stop()
    return [(record.getMessage(), record.exc_info is not None) for record in caplog.records[:TRIES]]


@pytest.mark.parametrize(
    ("make_error", "cause"),
    [
        (full_disk, "No space left on device"),
        (lambda: refused_by("sqlite:////nowhere/at/all.sqlite"), "unable to open database file"),
        (lambda: refused_by("postgresql+psycopg://u:secret@127.0.0.1:1/x"), "connection failed: "),
    ],
    ids=["disk", "sqlite", "postgresql"],
)
def test_fault_that_passes_is_one_line(
    service: Service, caplog: pytest.LogCaptureFixture, make_error: Callable[[], Exception], cause: str
) -> None:
    told = faults_told(failing(service, make_error()), caplog)
    for line, traced in told:
        assert line.startswith(f"worker=failed retry_seconds=0.1 error={cause}")
        assert "\n" not in line
        assert "secret" not in line
        assert not traced


@pytest.mark.parametrize("stage", ["postgresql"], indirect=True)
def test_database_that_takes_no_writes_is_one_line(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with service.database.engine.connect() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(InternalError) as caught:
            connection.execute(text("DELETE FROM runs"))
    told = faults_told(failing(service, caught.value), caplog)
    cause = "cannot execute DELETE in a read-only transaction"
    assert told == TRIES * [(f"worker=failed retry_seconds=0.1 error={cause}", False)]


def test_fault_of_our_own_is_told_with_its_traceback(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    told = faults_told(failing(service, KeyError("a fault of ours")), caplog)
    assert told == TRIES * [("worker=failed retry_seconds=0.1", True)]
