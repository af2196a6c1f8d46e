from __future__ import annotations

import os
import shutil
import time
from pathlib import Path, PosixPath

import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work
from service_bundle import make_adapter
from service_objects import kept_updates
from service_operator import Operator
from sqlalchemy import text
from sqlalchemy.engine import URL

from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.database import Database
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.tables import BundleRow, PopulationRow
from aggregator_service.worker.sweep import sweep
from hetlora.digest import sha256_of
from hetlora.errors import DigestMismatch, NotFound, SettingsError, UnavailableError


@pytest.fixture
def blobs(tmp_path: Path) -> BlobFolder:
    (tmp_path / "incoming").mkdir()
    return BlobFolder(tmp_path / "incoming", tmp_path / "blobs")


def sqlite_url(folder: Path) -> URL:
    return URL.create("sqlite", database=str(folder / "test.sqlite"))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(sqlite_url(tmp_path), timeout_seconds=1, connections=2)


def test_database_of_a_newer_version_is_refused(database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(SettingsError, match="cannot be migrated"):
        Database(sqlite_url(tmp_path), timeout_seconds=1, connections=2)


def test_database_is_durable_and_in_wal_mode(database: Database) -> None:
    with database.read() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
    database.close()


def test_failed_write_leaves_nothing(database: Database, clock: FakeClock) -> None:
    def write_and_fail() -> None:
        with database.write() as session:
            session.add(PopulationRow(name="keyboard", enrolment_token_sha256="0", created_at=clock()))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with database.read() as session:
        assert session.get(PopulationRow, "keyboard") is None
    database.close()


def test_sizes_beyond_two_gigabytes_are_kept(service: Service) -> None:
    size_bytes = 5 * 1024**3
    row = BundleRow(
        digest="large",
        base_model="",
        task="text-classification",
        max_rank=1,
        max_tokens=1,
        manifest_bytes=1,
        size_bytes=size_bytes,
    )
    with service.database.write() as session:
        session.add(row)
    with service.database.read() as session:
        assert session.get_one(BundleRow, "large").size_bytes == size_bytes


def test_times_come_back_in_utc(database: Database, clock: FakeClock) -> None:
    with database.write() as session:
        session.add(PopulationRow(name="keyboard", enrolment_token_sha256="0", created_at=clock()))
    with database.read() as session:
        assert session.get_one(PopulationRow, "keyboard").created_at == clock()
    database.close()


def test_blob_is_found_under_its_digest(blobs: BlobFolder) -> None:
    ref = blobs.put(b"data")
    assert (ref.sha256, ref.size_bytes) == (sha256_of(b"data"), 4)
    assert blobs.read(ref.sha256) == b"data"
    assert blobs.size_bytes(ref.sha256) == 4
    with blobs.opened(ref.sha256) as file:
        assert file.read() == b"data"
    assert list(blobs.incoming.iterdir()) == []


def test_blob_that_changed_on_disk_is_not_read(blobs: BlobFolder) -> None:
    ref = blobs.put(b"data")
    blobs.path(ref.sha256).write_bytes(b"date")
    with pytest.raises(DigestMismatch):
        blobs.read(ref.sha256)
    with pytest.raises(DigestMismatch):
        blobs.verify("file", ref.sha256)
    with pytest.raises(DigestMismatch), blobs.opened(ref.sha256):
        pass
    assert blobs.put(b"data") == ref
    assert blobs.read(ref.sha256) == b"data"


def test_missing_blob_is_not_found(blobs: BlobFolder) -> None:
    assert blobs.size_bytes("0" * 64) is None
    with pytest.raises(NotFound):
        blobs.read("0" * 64)
    with pytest.raises(NotFound):
        blobs.verify("file", "0" * 64)
    with pytest.raises(NotFound), blobs.opened("0" * 64):
        pass


def test_incoming_bytes_that_are_not_kept_leave_nothing(blobs: BlobFolder) -> None:
    with blobs.receive() as blob:
        blob.write(b"da")
        blob.write(b"ta")
        assert (blob.sha256, blob.size_bytes) == (sha256_of(b"data"), 4)
        with blob.reopened() as file:
            assert file.read() == b"data"
    assert list(blobs.incoming.iterdir()) == []
    assert not blobs.root.exists()


class Dropping(PosixPath):
    """The path of a temporary file, whose future folder is dropped when it is about to move there."""

    def replace(self, target: Path) -> Path:
        shutil.rmtree(target.parent.parent)
        return super().replace(target)


def test_folder_that_is_dropped_as_a_blob_comes_in_is_told_as_passing(blobs: BlobFolder) -> None:
    with blobs.receive() as blob:
        blob.write(b"bytes")
        blob.path = Dropping(blob.path)
        with pytest.raises(UnavailableError):
            blobs.keep(blob)
    assert list(blobs.incoming.iterdir()) == []
    assert blobs.read(blobs.put(b"bytes").sha256) == b"bytes"


def test_unfinished_uploads_of_a_dead_process_are_removed_after_a_day(service: Service) -> None:
    leftover, under_way = (service.store.incoming / name for name in ("half", "another"))
    for path in (leftover, under_way):
        path.write_bytes(b"half a file")
    a_day_ago = time.time() - service.settings.keep_orphans_seconds - 1
    os.utime(leftover, (a_day_ago, a_day_ago))
    sweep(service)
    assert (leftover.exists(), under_way.exists()) == (False, True)


def test_data_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="data_dir cannot be used"):
        open_service(Settings(data_dir=tmp_path / "file"))


@pytest.mark.parametrize("rule", ["fslora", "hetlora"])  # drawn for one device, or the same for all
def test_adapters_that_were_sent_are_dropped_after_the_updates_made_of_them(
    operator: Operator, device: FakeDevice, service: Service, clock: FakeClock, rule: str
) -> None:
    run_id = operator.run(operator.publish(SPEC), rounds=2, rule=rule, max_rank=RANK)
    sent = []
    for number, rank in enumerate((2, RANK)):  # of all ranks there is one draw, which is the version itself
        sent.append(work(device, rank, seed=number).plan.adapter)
        operator.committed(run_id, number + 1)

    def left() -> list[bool]:
        sweep(service)
        return [service.objects.size_bytes(ref.sha256) is not None for ref in sent]

    clock.advance(service.settings.keep_updates_seconds - 1)
    assert left() == [True, True]
    clock.advance(service.settings.keep_orphans_seconds + 1)
    assert left() == [False, True]


def test_adapter_that_was_drawn_for_a_device_that_brought_nothing_is_dropped(
    operator: Operator, device: FakeDevice, service: Service, clock: FakeClock
) -> None:
    run_id = operator.run(operator.publish(SPEC), rule="fslora", max_rank=RANK)
    sent = device.started_plan(2).adapter.sha256
    sweep(service)
    assert service.objects.size_bytes(sent) is not None
    operator.call("POST", f"/runs/{run_id}:stop")
    clock.advance(service.settings.keep_updates_seconds)
    sweep(service)
    assert service.objects.size_bytes(sent) is None


def test_updates_are_dropped_once_their_round_ended_long_ago(
    operator: Operator, device: FakeDevice, bundle: str, service: Service, clock: FakeClock
) -> None:
    run_id = operator.run(bundle, rounds=2)
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    device.deliver(make_adapter(1), rank=1)
    operator.committed(run_id, 2)
    open_run = operator.run(bundle, goal_count=2)
    device.deliver(make_adapter(2))

    def rounds() -> list[str]:
        sweep(service)
        return sorted(path.parents[1].name for path in kept_updates(service))

    assert len(rounds()) == 3
    clock.advance(service.settings.keep_updates_seconds - 1)
    assert len(rounds()) == 3
    clock.advance(1)
    # The third round has not ended: the clock alone does not take its update away.
    assert [name.startswith(open_run) for name in rounds()] == [True]


def test_update_that_was_dropped_does_not_come_back_when_it_is_repeated(
    operator: Operator, device: FakeDevice, bundle: str, service: Service, clock: FakeClock
) -> None:
    run_id = operator.run(bundle, lease_seconds=86_400)
    assignment_id = device.started()
    brought = device.upload(assignment_id, make_adapter(2)).json()
    device.submit(assignment_id, make_adapter(2))
    operator.committed(run_id)
    clock.advance(service.settings.keep_updates_seconds)
    sweep(service)
    assert device.upload(assignment_id, make_adapter(2)).json() == brought
    assert kept_updates(service) == []
