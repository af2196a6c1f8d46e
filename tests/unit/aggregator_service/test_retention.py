"""The objects of a service of months: a sweep looks at some of them, and drops all that nothing names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from evaluation_verbs import first_round, taken
from fake_clock import FakeClock
from many_rows import add_objects, add_versions, asked_of
from service_objects import put
from service_verbs import add_device
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from aggregator_service.artifacts.bundles import read_manifest
from aggregator_service.artifacts.objects import OBJECTS_AT_A_TIME, drop_orphans
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.tables import (
    AdapterVersionRow,
    AssignmentRow,
    Base,
    CheckpointRow,
    HandoutRow,
    ObjectRow,
    RoundRow,
)
from hetlora.digest import sha256_of
from hetlora.states import EvaluationAssignmentState


def touched(service: Service) -> int:
    """How many objects were touched just now."""
    with service.database.read() as session:
        now = ObjectRow.touched_at == service.clock()
        return len(session.scalars(select(ObjectRow.sha256).where(now)).all())


def test_sweep_of_thousands_of_objects_looks_at_so_many_of_them(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    first_round(service, bundle)
    with service.database.read() as session:
        few = len(session.scalars(select(ObjectRow.sha256)).all())
    assert few < 20
    clock.advance(2 * 86_400)
    with asked_of(service) as asked_of_few:
        drop_orphans(service)
    assert touched(service) == few

    clock.advance(2 * 86_400)
    add_versions(service, 2 * OBJECTS_AT_A_TIME)
    for letter in "abc":
        add_objects(service, letter, 2 * OBJECTS_AT_A_TIME)
    with asked_of(service) as asked:
        drop_orphans(service)
    assert touched(service) == OBJECTS_AT_A_TIME
    assert len(asked) <= len(asked_of_few)


def test_orphan_among_thousands_of_objects_goes_and_they_stay(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    first_round(service, bundle)
    clock.advance(60)
    orphan = put(service, b"orphan").sha256
    add_versions(service, 2 * OBJECTS_AT_A_TIME)
    with service.database.read() as session:
        oldest = session.scalars(select(ObjectRow.touched_at).order_by(ObjectRow.touched_at)).first()
    for letter in "abc":
        add_objects(service, letter, 2 * OBJECTS_AT_A_TIME)
    with service.database.write() as session:  # all of them are looked at before the orphan
        session.execute(
            update(ObjectRow).where(ObjectRow.sha256 != orphan).values(touched_at=oldest),
            execution_options={"synchronize_session": False},
        )
    clock.advance(2 * 86_400)
    with service.database.read() as session:
        before = set(session.scalars(select(ObjectRow.sha256)))
    for _ in range(len(before) // OBJECTS_AT_A_TIME):
        drop_orphans(service)
        assert service.objects.size_bytes(orphan) is not None
    drop_orphans(service)
    assert service.objects.size_bytes(orphan) is None
    assert touched(service) == len(before) - 1


def copied(session: Session, row: Base, **changed: object) -> None:
    """Add a row like another."""
    columns = [column.key for column in row.__mapper__.column_attrs]
    session.add(type(row)(**{name: getattr(row, name) for name in columns} | changed))


def name_objects(service: Service) -> dict[str, str]:
    """Rows of every kind that name an object; the digests by who names it."""
    taken(service, add_device(service, "device-2"))
    names = (
        *("adapter", "frozen", "state", "handout", "frozen of a handout", "checkpoint", "live evaluation"),
        *("evaluation that is over", "assignment", "assignment whose updates are gone", "nothing"),
    )
    made = {name: put(service, name.encode()).sha256 for name in names}
    expired = EvaluationAssignmentState.EXPIRED
    with service.database.write() as session:
        version = session.scalars(select(AdapterVersionRow).order_by(AdapterVersionRow.id.desc())).first()
        assert version is not None
        own = {"sha256": "adapter", "frozen_sha256": "frozen", "state_sha256": "state"}
        copied(session, version, id="version", **{column: made[name] for column, name in own.items()})
        digests = {"sha256": made["handout"], "frozen_sha256": made["frozen of a handout"]}
        session.add(HandoutRow(version=version.id, rank=9, size_bytes=1, frozen_bytes=1, **digests))
        over, going_on = session.scalars(select(RoundRow).order_by(RoundRow.id)).all()
        session.add(
            CheckpointRow(round_id=going_on.id, leaf_count=1, inputs_sha256="", sha256=made["checkpoint"])
        )
        part = session.scalars(select(EvaluationAssignmentRow)).one()
        part.adapter_sha256 = made["live evaluation"]
        sent = made["evaluation that is over"]
        copied(session, part, id="part", device_id="device-1", state=expired, adapter_sha256=sent)
        copied(session, over, id="round", updates_dropped=True)
        session.flush()
        work = session.scalars(select(AssignmentRow)).one()
        copied(session, work, id="kept", adapter_sha256=made["assignment"])
        gone = made["assignment whose updates are gone"]
        copied(session, work, id="gone", adapter_sha256=gone, round_id="round")
    return made


def test_what_nothing_names_goes_and_all_else_stays(service: Service, bundle: str, clock: FakeClock) -> None:
    first_round(service, bundle)
    made = name_objects(service)
    clock.advance(service.settings.keep_orphans_seconds + 1)
    young = put(service, b"young").sha256
    drop_orphans(service)
    assert {name for name, sha256 in made.items() if service.objects.size_bytes(sha256) is None} == {
        "evaluation that is over",
        "assignment whose updates are gone",
        "nothing",
    }
    files = [entry.sha256 for entry in read_manifest(service, bundle).files.values()]
    for sha256 in (young, bundle, *files):
        assert service.objects.size_bytes(sha256) is not None


def test_object_that_is_named_no_more_goes_a_day_after_it_was_seen_to_be(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    first_round(service, bundle)
    sha256 = name_objects(service)["checkpoint"]
    day = service.settings.keep_orphans_seconds
    clock.advance(day + 1)
    drop_orphans(service)
    with service.database.write() as session:
        session.delete(session.scalars(select(CheckpointRow)).one())
    clock.advance(day)
    drop_orphans(service)
    assert service.objects.size_bytes(sha256) is not None
    clock.advance(1)
    drop_orphans(service)
    assert service.objects.size_bytes(sha256) is None


@dataclass(frozen=True)
class Watched(BlobFolder):
    """A folder that tells what was read of it."""

    read_of: list[str] = field(default_factory=list)

    def load(self, sha256: str) -> bytes:
        self.read_of.append(sha256)
        return super().load(sha256)


def watched(service: Service) -> tuple[Service, list[str]]:
    own: Any = service.objects
    folder = Watched(own.incoming, own.root)
    return replace(service, objects=folder), folder.read_of


def test_manifests_are_read_once_a_day_and_only_for_what_no_row_names(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    first_round(service, bundle)
    clock.advance(service.settings.keep_orphans_seconds + 1)
    seen, read = watched(service)
    drop_orphans(seen)
    assert read == [bundle]  # for the files of the bundle, which are as old
    for _ in range(3):
        drop_orphans(seen)
    assert read == [bundle]
    with service.database.write() as session:
        of_versions = ObjectRow.sha256.in_(select(AdapterVersionRow.sha256))
        long_ago = update(ObjectRow).where(of_versions).values(touched_at=clock() - timedelta(days=9))
        session.execute(long_ago, execution_options={"synchronize_session": False})
    drop_orphans(seen)
    assert read == [bundle]
    assert sha256_of(service.objects.read(bundle)) == bundle
