"""A bucket that does not answer for a while: nothing is taken for lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from service_bundle import make_adapter
from service_verbs import add_device, asked, assignment_of, deliver, started_run
from sqlalchemy import select

from aggregator_service.assignments.assignments import start
from aggregator_service.needed_objects import check_needed_objects
from aggregator_service.service import Service
from aggregator_service.storage.blobs import Blobs, reading_own
from aggregator_service.storage.bucket import open_bucket
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.incoming import IncomingBlob
from aggregator_service.storage.store import Store
from aggregator_service.storage.tables import AssignmentRow, RoundRow
from aggregator_service.worker.worker import tick
from benchmarks.processes import free_port
from benchmarks.s3_server import environment
from hetlora.errors import NotFound, ServiceFailed, UnavailableError


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A bucket on a port that nobody listens on: obstore tries for some three seconds before it tells."""
    pytest.importorskip("obstore", reason="pip install obstore")
    for name, value in environment(f"http://127.0.0.1:{free_port()}").items():
        monkeypatch.setenv(name, value)
    open_bucket.cache_clear()
    return Store(tmp_path, "s3://hetlora")


@dataclass(frozen=True)
class TakesNothing(BlobFolder):
    """A folder as a bucket that goes away between what is read of it and what is written."""

    def _store(self, blob: IncomingBlob) -> None:
        raise UnavailableError("the object store does not answer now")


def takes_nothing(objects: Blobs) -> Blobs:
    assert isinstance(objects, BlobFolder)
    return TakesNothing(objects.incoming, objects.root)


def state_of(service: Service, run_id: str) -> tuple[list[str], list[str]]:
    """The states of a run's rounds and of its assignments."""
    with service.database.read() as session:
        rounds = session.scalars(select(RoundRow.state).where(RoundRow.run_id == run_id))
        assignments = session.scalars(select(AssignmentRow.state).where(AssignmentRow.run_id == run_id))
        return [state.value for state in rounds], [state.value for state in assignments]


@pytest.mark.slow
def test_update_that_cannot_be_read_now_is_waited_for(service: Service, bundle: str, away: Store) -> None:
    run_id = started_run(service, bundle)
    deliver(service, add_device(service), make_adapter(2))
    tick(replace(service, store=away))
    assert state_of(service, run_id) == (["aggregating"], ["accepted"])
    tick(service)
    assert state_of(service, run_id) == (["committed"], ["accepted"])


def test_round_whose_adapter_cannot_be_stored_now_is_not_given_up(service: Service, bundle: str) -> None:
    run_id = started_run(service, bundle)
    deliver(service, add_device(service), make_adapter(2))
    tick(replace(service, objects=takes_nothing(service.objects)))
    assert state_of(service, run_id) == (["aggregating"], ["accepted"])
    tick(service)
    assert state_of(service, run_id) == (["committed"], ["accepted"])


@pytest.mark.slow
def test_device_is_told_to_ask_later_and_not_that_the_service_failed(
    service: Service, bundle: str, away: Store
) -> None:
    started_run(service, bundle)
    device_id = add_device(service)
    assert asked(service, device_id).offer is not None
    assignment_id = assignment_of(service, device_id)
    with pytest.raises(UnavailableError) as refusal:
        start(replace(service, objects=away.blobs("objects")), device_id, assignment_id, 2)
    assert (refusal.value.code, refusal.value.status) == ("unavailable", 503)
    assert start(service, device_id, assignment_id, 2).rank == 2


def test_object_that_is_lost_is_still_the_services_own_failure() -> None:
    with pytest.raises(ServiceFailed), reading_own("an adapter"):
        raise NotFound("no such object", got="its digest")


@pytest.mark.slow
def test_doctor_tells_a_store_that_is_away_from_one_that_lacks_objects(
    service: Service, bundle: str, away: Store
) -> None:
    started_run(service, bundle)
    with pytest.raises(UnavailableError, match=r"^the object store does not answer now"):
        check_needed_objects(service.settings.model_copy(update={"object_store_url": away.url}))
