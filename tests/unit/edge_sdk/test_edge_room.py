"""A disk that is full of what nobody needs any more has room for the next bundle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from adapter_rounds import unreadable_index
from fake_service import FakeService

from edge_sdk.client import EdgeClient
from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder
from edge_sdk.transport.bundles import DISK_RESERVE_BYTES, BundleCache
from edge_sdk.transport.downloads import Downloads
from edge_sdk.transport.transport import Transport
from edge_sdk.transport.verified_files import VerifiedFiles
from hetlora.bundle import verify_files
from hetlora.digest import sha256_of
from hetlora.errors import DeviceTooSmall
from hetlora.manifest import MANIFEST_NAME

MakeClient = Callable[..., EdgeClient]
BASE = "weights/base.bin"


@dataclass
class Disk:
    """A disk of so many bytes below a folder, beside what is in reserve, and the bundles on it."""

    folder: DeviceFolder
    downloads: Downloads
    database: DeviceDatabase
    size_bytes: int = 0
    needed: set[str] = field(default_factory=set)

    def free_bytes(self, folder: Path) -> int:
        taken = sum(
            path.stat().st_size
            for place in (self.folder.bundles, self.folder.downloads)
            for path in place.rglob("*")
            if path.is_file()
        )
        return DISK_RESERVE_BYTES + self.size_bytes - taken

    def cache(self, *names: str) -> BundleCache:
        """One that needs these files of bundles, or all if none are named."""
        return BundleCache(
            self.folder.bundles,
            self.downloads,
            VerifiedFiles(self.database, self.folder.bundles),
            files_of=lambda manifest: names or manifest.files,
            needed=lambda: self.needed,
            free_bytes=self.free_bytes,
        )

    def old_bundle(self, name: str, *, used_at: int) -> Path:
        """Of 1000 bytes."""
        folder = self.folder.bundles / name
        folder.mkdir()
        (folder / "base.bin").write_bytes(bytes(1000))
        os.utime(folder, (used_at, used_at))
        return folder

    def leftover(self, name: str, data: bytes) -> Path:
        path = self.folder.downloads / f"{name}.part"
        path.write_bytes(data)
        return path


@pytest.fixture
def disk(service: FakeService, transport: Transport, folder: DeviceFolder) -> Iterator[Disk]:
    """One with just the room for the bundle of the service."""
    with closing(DeviceDatabase(folder.database)) as database:
        whole_bytes = service.bundle.size_bytes + sum(map(len, service.files.values()))
        yield Disk(folder, Downloads(transport, folder.downloads), database, whole_bytes)


def test_download_that_was_cut_off_is_finished_in_the_room_that_it_began_with(
    service: FakeService, disk: Disk
) -> None:
    base = service.files[BASE]
    disk.leftover(sha256_of(base), base[:9000])
    cache = disk.cache()
    assert cache.missing_bytes(service.bundle) == sum(map(len, service.files.values())) - 9000
    verify_files(cache.bundle(service.bundle))
    assert disk.downloads.received_bytes == disk.size_bytes - 9000


def test_room_is_wanted_for_the_files_that_the_device_needs_alone(service: FakeService, disk: Disk) -> None:
    others = sum(len(data) for name, data in service.files.items() if name != BASE)
    disk.size_bytes -= others
    cache = disk.cache(BASE)
    assert cache.missing_bytes(service.bundle) == len(service.files[BASE])
    cache.make_room(service.bundle)
    cache.bundle(service.bundle)
    assert cache.missing_bytes(service.bundle) == 0
    assert service.fetched() == [MANIFEST_NAME, BASE]
    with pytest.raises(DeviceTooSmall, match="the disk has no room for the bundle"):
        disk.cache().make_room(service.bundle)


def test_leftovers_of_other_downloads_go_where_room_is_wanted(service: FakeService, disk: Disk) -> None:
    base = service.files[BASE]
    own, other = disk.leftover(sha256_of(base), base[:9000]), disk.leftover("0" * 64, bytes(1000))
    disk.cache().make_room(service.bundle)
    assert own.exists()
    assert not other.exists()
    verify_files(disk.cache().bundle(service.bundle))


def test_bundle_that_was_not_used_for_longest_goes_first_and_no_more_than_have_to(
    service: FakeService, disk: Disk
) -> None:
    old, older, oldest = (disk.old_bundle(name, used_at=at) for name, at in [("a", 3), ("b", 2), ("c", 1)])
    disk.size_bytes += 1500  # two of the three have to go
    verify_files(disk.cache().bundle(service.bundle))
    assert old.exists()
    assert not older.exists()
    assert not oldest.exists()


def test_nothing_goes_for_a_bundle_that_has_no_room_all_the_same(service: FakeService, disk: Disk) -> None:
    leftover, old = disk.leftover("0" * 64, bytes(1000)), disk.old_bundle("a", used_at=1)
    disk.size_bytes -= 1
    with pytest.raises(DeviceTooSmall, match="and 2000 that could go"):
        disk.cache().make_room(service.bundle)
    assert leftover.exists()
    assert old.exists()
    disk.size_bytes += 1
    disk.cache().make_room(service.bundle)
    assert not old.exists()


def test_bundle_that_is_used_again_is_the_newest(service: FakeService, disk: Disk) -> None:
    cache = disk.cache()
    folder = disk.folder.bundles / service.bundle.sha256
    cache.bundle(service.bundle)
    os.utime(folder, (0, 0))
    cache.bundle(service.bundle)
    assert folder.stat().st_mtime > 0


def test_bundle_that_is_needed_stays_and_so_does_one_for_which_there_is_room(
    service: FakeService, disk: Disk
) -> None:
    needed = disk.old_bundle("a", used_at=1)
    disk.needed = {"a"}
    with pytest.raises(DeviceTooSmall, match="the disk has no room for the bundle"):
        disk.cache().bundle(service.bundle)
    assert needed.exists()
    disk.size_bytes += 2000
    unneeded = disk.old_bundle("b", used_at=1)
    disk.cache().bundle(service.bundle)
    assert unneeded.exists()


def test_nothing_is_known_of_the_files_of_a_bundle_that_is_gone(service: FakeService, disk: Disk) -> None:
    old = disk.old_bundle("a", used_at=1)
    VerifiedFiles(disk.database, disk.folder.bundles).note(old / "base.bin", sha256_of(bytes(1000)))
    disk.cache().bundle(service.bundle)
    with disk.database.reading() as database:
        names = {path for (path,) in database.execute("SELECT path FROM verified_files")}
    assert names == {f"{service.bundle.sha256}/{name}" for name in ("manifest.json", *service.files)}


def test_device_with_a_full_disk_keeps_the_bundles_of_its_adapters_alone(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client()
    assert client.run_once().outcome == "accepted"
    own = folder.bundles / service.bundle.sha256
    unneeded = shutil.copytree(own, folder.bundles / ("0" * 64))
    next_service = FakeService(change=lambda manifest: manifest.model_copy(update={"max_tokens": 12}))
    service.objects |= next_service.objects
    service.offer = service.offer.model_copy(update={"bundle": next_service.bundle})
    # One byte is missing until the unneeded one is gone.
    wanted_bytes = sum(map(len, next_service.files.values()))

    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=DISK_RESERVE_BYTES + wanted_bytes - unneeded.exists())

    monkeypatch.setattr("edge_sdk.transport.bundles.shutil.disk_usage", usage)
    assert client.run_once().outcome == "accepted"
    assert own.exists()
    assert not unneeded.exists()


def test_no_bundle_goes_while_nobody_can_say_which_are_needed(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client()
    assert client.run_once().outcome == "accepted"
    own = folder.bundles / service.bundle.sha256
    monkeypatch.setattr("edge_sdk.transport.bundles.DISK_RESERVE_BYTES", 2**60)
    next_service = FakeService(change=lambda manifest: manifest.model_copy(update={"max_tokens": 12}))
    service.objects |= next_service.objects
    service.offer = service.offer.model_copy(update={"bundle": next_service.bundle})
    with unreadable_index(folder):
        visit = client.run_once()
    assert (visit.outcome, visit.code) == ("failed", "unavailable")
    assert own.exists()
