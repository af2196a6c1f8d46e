"""What else may happen to an upload while its last part is made an update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest
from fake_clock import FakeClock
from service_bundle import make_adapter
from service_objects import kept_updates, stored_parts
from service_verbs import add_device, started_run, take_offer
from sqlalchemy import event
from sqlalchemy.orm import Session

from aggregator_service.assignments.assignments import start
from aggregator_service.assignments.updates import keep_update, terms_of
from aggregator_service.assignments.upload_parts import PartTerms, keep_part, terms_of_part
from aggregator_service.assignments.uploads import Upload, begin_upload, end_upload, find_upload
from aggregator_service.service import Service
from aggregator_service.storage.blobs import Blobs
from aggregator_service.storage.database import Database
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.incoming import IncomingBlob
from aggregator_service.storage.store import Store
from aggregator_service.worker.sweep import sweep
from hetlora.digest import sha256_of
from hetlora.errors import NotFound, OffsetMismatch, StateConflict, UnavailableError
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Plan
from hetlora.tensors import adapter_to_bytes

UPDATE = adapter_to_bytes(make_adapter(2))
HALF = len(UPDATE) // 2
DEVICE = "device-1"


@dataclass(frozen=True)
class Overtaken(BlobFolder):
    """The folder of a request that something else overtakes, after it has read what the parts are."""

    meanwhile: Callable[[], object]

    @contextmanager
    def receive(self) -> Iterator[IncomingBlob]:
        self.meanwhile()
        with super().receive() as blob:
            yield blob


@dataclass(frozen=True)
class Slow(BlobFolder):
    """A folder that keeps an update so slowly that something else happens after it."""

    meanwhile: Callable[[str], object]

    def keep(self, blob: IncomingBlob) -> ObjectRef:
        ref = super().keep(blob)
        self.meanwhile(ref.sha256)
        return ref


@dataclass(frozen=True)
class SlowStore(Store):
    """A store that keeps everything so slowly that something else happens after it."""

    meanwhile: Callable[[str], object] = field(kw_only=True)

    def blobs(self, folder: str) -> Blobs:
        return Slow(self.incoming, self.data_dir / folder, self.meanwhile)


class Interrupted(Database):
    """Lets something happen before one of the statements of a reading session."""

    def __init__(self, whole: Database, statement: int, meanwhile: Callable[[], object]) -> None:
        self.engine, self.write = whole.engine, whole.write  # type: ignore[method-assign]
        self._whole, self._left, self._meanwhile = whole, statement, meanwhile

    @contextmanager
    def read(self) -> Iterator[Session]:
        with self._whole.read() as session:
            event.listen(session, "do_orm_execute", self._count)
            yield session

    def _count(self, _statement: object) -> None:
        self._left -= 1
        if self._left == 0:
            self._meanwhile()


@pytest.fixture
def upload(service: Service, bundle: str) -> Upload:
    """An upload whose first half is in."""
    started_run(service, bundle, lease_seconds=100)
    assignment_id = take_offer(service, add_device(service), rank=2)
    promised = ObjectRef(sha256=sha256_of(UPDATE), size_bytes=len(UPDATE))
    begun = begin_upload(service, DEVICE, assignment_id, promised)
    return keep(service, terms_of_part(service, DEVICE, begun.id, 0), UPDATE[:HALF])


def keep(service: Service, part: PartTerms, data: bytes) -> Upload:
    with service.objects.receive() as blob:
        blob.write(data)
        return keep_part(service, part, blob)


def overtaken(service: Service, upload: Upload, meanwhile: Callable[[], object]) -> Upload:
    """The last part, while something else happens."""
    part = terms_of_part(service, DEVICE, upload.id, HALF)
    folder = part.terms.folder
    assert isinstance(folder, BlobFolder)
    slow = Overtaken(folder.incoming, folder.root, meanwhile)
    return keep(service, replace(part, terms=replace(part.terms, folder=slow)), UPDATE[HALF:])


def test_last_part_finds_that_its_twin_made_the_update(service: Service, upload: Upload) -> None:
    part, twin = (terms_of_part(service, DEVICE, upload.id, HALF) for _ in range(2))
    for own in (part, twin):
        assert keep(service, own, UPDATE[HALF:]).missing_bytes == 0
    assert [path.read_bytes() for path in kept_updates(service)] == [UPDATE]


def test_last_part_finds_the_parts_gone_as_its_twin_made_the_update(service: Service, upload: Upload) -> None:
    twin = terms_of_part(service, DEVICE, upload.id, HALF)
    told = overtaken(service, upload, lambda: keep(service, twin, UPDATE[HALF:]))
    assert told.missing_bytes == 0
    assert [path.read_bytes() for path in kept_updates(service)] == [UPDATE]
    assert list(service.objects.incoming.iterdir()) == []


@pytest.mark.parametrize("statement", range(1, 6))
def test_last_part_is_never_taken_for_another_update_while_its_twin_makes_the_update(
    service: Service, upload: Upload, statement: int
) -> None:
    part, twin = (terms_of_part(service, DEVICE, upload.id, HALF) for _ in range(2))
    happened: list[Upload] = []

    def meanwhile() -> None:
        happened.append(keep(service, twin, UPDATE[HALF:]))

    interrupted = replace(service, database=Interrupted(service.database, statement, meanwhile))
    with suppress(OffsetMismatch):  # then the device asks, and hears that nothing is missing
        assert keep(interrupted, part, UPDATE[HALF:]).missing_bytes == 0
    assert len(happened) == (statement <= 4)
    assert [path.read_bytes() for path in kept_updates(service)] == [UPDATE]
    assert find_upload(service, DEVICE, upload.id).missing_bytes == 0


def test_upload_that_is_ended_meanwhile_makes_no_update(service: Service, upload: Upload) -> None:
    with pytest.raises(NotFound):
        overtaken(service, upload, lambda: end_upload(service, DEVICE, upload.id))
    assert kept_updates(service) == stored_parts(service) == []


@pytest.mark.parametrize("statement", range(1, 5))
def test_upload_that_is_ended_while_it_is_asked_for_is_found_or_not(
    service: Service, upload: Upload, statement: int
) -> None:
    ending = Interrupted(service.database, statement, lambda: end_upload(service, DEVICE, upload.id))
    with suppress(NotFound):
        assert find_upload(replace(service, database=ending), DEVICE, upload.id) == upload
    assert (stored_parts(service) == []) is (statement <= 3)


def test_upload_whose_lease_runs_out_meanwhile_makes_no_update(
    service: Service, upload: Upload, clock: FakeClock
) -> None:
    with pytest.raises(StateConflict, match="the lease ran out"):
        overtaken(service, upload, lambda: clock.advance(100))
    assert kept_updates(service) == []
    sweep(service)
    assert stored_parts(service) == []


def test_upload_of_a_plan_that_is_replaced_meanwhile_can_be_brought_again(
    service: Service, upload: Upload
) -> None:
    with pytest.raises(StateConflict, match="an update of the plan at rank 1"):
        overtaken(service, upload, lambda: start(service, DEVICE, upload.assignment_id, 1))
    assert kept_updates(service) == []
    assert find_upload(service, DEVICE, upload.id).offset_bytes == HALF


def kept_slowly(service: Service, assignment_id: str, meanwhile: Callable[[str], object]) -> ObjectRef:
    """A whole update, while something else happens once its bytes are kept."""
    terms = terms_of(service, DEVICE, assignment_id, sha256_of(UPDATE))
    assert isinstance(terms.folder, BlobFolder)
    slow = Slow(terms.folder.incoming, terms.folder.root, meanwhile)
    with service.objects.receive() as blob:
        blob.write(UPDATE)
        return keep_update(service, replace(terms, folder=slow), blob)


def test_nobody_waits_at_the_run_for_a_store_that_is_slow(service: Service, upload: Upload) -> None:
    answered: list[Plan] = []

    def meanwhile(_sha256: str) -> None:
        answered.append(start(service, DEVICE, upload.assignment_id, 2))

    assert kept_slowly(service, upload.assignment_id, meanwhile).size_bytes == len(UPDATE)
    assert [plan.rank for plan in answered] == [2]


def test_update_whose_bytes_are_dropped_before_it_names_them_is_asked_for_again(
    service: Service, upload: Upload
) -> None:
    folder = terms_of(service, DEVICE, upload.assignment_id, sha256_of(UPDATE)).folder
    with pytest.raises(UnavailableError):
        kept_slowly(service, upload.assignment_id, folder.remove)
    assert find_upload(service, DEVICE, upload.id).offset_bytes == HALF
    ref = kept_slowly(service, upload.assignment_id, lambda _sha256: None)
    assert [path.name for path in kept_updates(service)] == [ref.sha256]


def test_nobody_waits_for_a_part_that_is_kept_slowly(service: Service, upload: Upload) -> None:
    ended: list[str] = []

    def meanwhile(sha256: str) -> None:
        end_upload(service, DEVICE, upload.id)
        ended.append(sha256)

    part = terms_of_part(service, DEVICE, upload.id, HALF)
    slow = replace(service, store=SlowStore(service.store.data_dir, meanwhile=meanwhile))
    with pytest.raises(NotFound):
        keep(slow, part, UPDATE[HALF:-10])
    assert ended == [sha256_of(UPDATE[HALF:-10])]
    assert stored_parts(service) == []


def test_part_that_is_brought_twice_at_once_stays_stored(service: Service, upload: Upload) -> None:
    part, twin = (terms_of_part(service, DEVICE, upload.id, HALF) for _ in range(2))
    assert keep(service, part, UPDATE[HALF:-10]).missing_bytes == 10
    with pytest.raises(OffsetMismatch):
        keep(service, twin, UPDATE[HALF:-10])
    last = terms_of_part(service, DEVICE, upload.id, len(UPDATE) - 10)
    assert keep(service, last, UPDATE[-10:]).missing_bytes == 0
    assert [path.read_bytes() for path in kept_updates(service)] == [UPDATE]


def test_part_that_is_overtaken_by_another_is_not_stored(service: Service, upload: Upload) -> None:
    late, soon = (terms_of_part(service, DEVICE, upload.id, HALF) for _ in range(2))
    assert keep(service, soon, UPDATE[HALF:-10]).offset_bytes == len(UPDATE) - 10
    with pytest.raises(StateConflict):
        keep(service, late, UPDATE[HALF:-20])
    assert sorted(path.stat().st_size for path in stored_parts(service)) == sorted(
        (HALF, len(UPDATE) - HALF - 10)
    )
