from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from device_clock import Clock
from fake_bundle import tiny_files
from fake_service import FakeService

from edge_sdk.client import EdgeClient
from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder
from edge_sdk.freshness import DAY_SECONDS
from edge_sdk.transport import bundles
from edge_sdk.transport.bundles import BundleCache
from edge_sdk.transport.downloads import Downloads
from edge_sdk.transport.transport import Transport
from edge_sdk.transport.verified_files import VerifiedFiles
from hetlora.bundle import verify_files
from hetlora.digest import sha256_of
from hetlora.errors import BodyTooLarge, BundleInvalid, DeviceTooSmall, DigestMismatch
from hetlora.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES
from hetlora.messages.common import ObjectRef


@pytest.fixture
def downloads(transport: Transport, folder: DeviceFolder) -> Downloads:
    return Downloads(transport, folder.downloads)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_cache(
    downloads: Downloads, folder: DeviceFolder, clock: Clock
) -> Iterator[Callable[..., BundleCache]]:
    """Caches of one process after the other, each of the files that it names, or of all if it names none."""
    with ExitStack() as opened:

        def make(*names: str) -> BundleCache:
            database = opened.enter_context(closing(DeviceDatabase(folder.database)))
            return BundleCache(
                folder.bundles,
                downloads,
                VerifiedFiles(database, folder.bundles, clock=clock),
                files_of=lambda manifest: names or manifest.files,
            )

        yield make


@pytest.fixture
def cache(make_cache: Callable[[], BundleCache]) -> BundleCache:
    return make_cache()


def _flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_bundle_arrives_whole_and_verified(service: FakeService, cache: BundleCache) -> None:
    bundle = cache.bundle(service.bundle)
    verify_files(bundle)
    assert bundle.digest == service.bundle.sha256
    assert bundle.path("weights/base.bin").read_bytes() == tiny_files()["weights/base.bin"]
    assert sorted(service.fetched()) == sorted(["manifest.json", *tiny_files()])


def test_manifest_comes_without_the_large_files(service: FakeService, cache: BundleCache) -> None:
    assert cache.manifest(service.bundle).labels == ("cold", "warm")
    assert service.fetched() == ["manifest.json"]


def test_second_use_downloads_nothing(service: FakeService, cache: BundleCache) -> None:
    cache.bundle(service.bundle)
    service.requests.clear()
    cache.bundle(service.bundle)
    assert service.requests == []


def test_next_process_downloads_nothing(
    service: FakeService, cache: BundleCache, make_cache: Callable[[], BundleCache]
) -> None:
    cache.bundle(service.bundle)
    service.requests.clear()
    verify_files(make_cache().bundle(service.bundle))
    assert service.requests == []


@pytest.mark.parametrize("damaged", ["weights/base.bin", "manifest.json"])
def test_byte_flipped_on_disk_is_found_by_the_next_process_and_mended(
    service: FakeService, cache: BundleCache, make_cache: Callable[[], BundleCache], damaged: str
) -> None:
    _flip_last_byte(cache.bundle(service.bundle).path(damaged))
    service.requests.clear()
    verify_files(make_cache().bundle(service.bundle))
    assert service.fetched() == [damaged]


@pytest.mark.parametrize(
    ("later_seconds", "found"), [(DAY_SECONDS - 1, []), (DAY_SECONDS, ["eval.onnx"]), (-1, ["eval.onnx"])]
)
def test_file_that_rots_without_being_written_is_found_after_a_day(
    service: FakeService,
    cache: BundleCache,
    make_cache: Callable[[], BundleCache],
    clock: Clock,
    later_seconds: float,
    found: list[str],
) -> None:
    path = cache.bundle(service.bundle).path("eval.onnx")
    written = path.stat()
    _flip_last_byte(path)
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    service.requests.clear()
    clock.now += later_seconds
    make_cache().bundle(service.bundle)
    assert service.fetched() == found


def test_file_of_wrong_size_is_found_at_once_and_mended(service: FakeService, cache: BundleCache) -> None:
    path = cache.bundle(service.bundle).path("training.onnx")
    path.write_bytes(path.read_bytes() + b"!")
    service.requests.clear()
    verify_files(cache.bundle(service.bundle))
    assert service.fetched() == ["training.onnx"]


def test_missing_file_alone_is_fetched(service: FakeService, cache: BundleCache) -> None:
    cache.bundle(service.bundle).path("eval.onnx").unlink()
    service.requests.clear()
    verify_files(cache.bundle(service.bundle))
    assert service.fetched() == ["eval.onnx"]


def test_part_of_a_bundle_is_completed_and_what_is_there_is_neither_fetched_nor_hashed_again(
    service: FakeService, make_cache: Callable[..., BundleCache], folder: DeviceFolder
) -> None:
    first, second = ("eval.onnx", "weights/base.bin"), ("training.onnx", "weights/base.bin")
    bundle = make_cache(*first).bundle(service.bundle)
    verify_files(bundle, first)
    assert service.fetched() == ["manifest.json", *first]
    # A file that is not hashed again today keeps a byte that rots; see the test of a day above.
    path = bundle.path("weights/base.bin")
    written = path.stat()
    _flip_last_byte(path)
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    bundle.path("eval.onnx").write_bytes(b"damaged, and not needed now")
    service.requests.clear()
    make_cache(*second).bundle(service.bundle)
    assert service.fetched() == ["training.onnx"]
    assert not bundle.path("eval.onnx").exists()
    service.requests.clear()
    make_cache().bundle(service.bundle)
    assert sorted(service.fetched()) == sorted(service.files.keys() - {*second})


def test_flipped_byte_at_the_service_is_refused(service: FakeService, cache: BundleCache) -> None:
    digest = sha256_of(service.files["tokenizer.json"])
    service.objects[digest] = service.objects[digest][:-1] + b"!"
    with pytest.raises(DigestMismatch, match=r"tokenizer\.json does not match its digest"):
        cache.bundle(service.bundle)


def test_interrupted_bundle_keeps_what_arrived(service: FakeService, cache: BundleCache) -> None:
    digest = sha256_of(service.files["tokenizer.json"])
    good = service.objects[digest]
    service.objects[digest] = good[:-1] + b"!"
    with pytest.raises(DigestMismatch):
        cache.bundle(service.bundle)
    service.objects[digest] = good
    service.requests.clear()
    verify_files(cache.bundle(service.bundle))
    assert service.fetched() == ["tokenizer.json"]


def test_manifest_of_wrong_digest_is_refused(service: FakeService, cache: BundleCache) -> None:
    service.objects[service.bundle.sha256] = b"{" + service.objects[service.bundle.sha256][1:-1] + b" "
    with pytest.raises(DigestMismatch, match=r"manifest\.json"):
        cache.manifest(service.bundle)


def test_manifest_that_its_schema_refuses_is_invalid(service: FakeService, cache: BundleCache) -> None:
    service.objects[sha256_of(b"{}")] = b"{}"
    with pytest.raises(BundleInvalid, match="schema"):
        cache.manifest(ObjectRef(sha256=sha256_of(b"{}"), size_bytes=2))


def test_manifest_too_large_is_not_even_asked_for(service: FakeService, cache: BundleCache) -> None:
    with pytest.raises(BodyTooLarge):
        cache.manifest(ObjectRef(sha256="0" * 64, size_bytes=MAX_MANIFEST_BYTES + 1))
    assert service.requests == []


def test_disk_without_room_is_said_before_the_download(
    service: FakeService, cache: BundleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "DISK_RESERVE_BYTES", 2**60)
    with pytest.raises(DeviceTooSmall, match="the disk has no room for the bundle"):
        cache.bundle(service.bundle)
    assert service.fetched() == ["manifest.json"]


def test_manifest_that_rotted_is_fetched_again_once_it_is_found_unusable(
    service: FakeService, make_client: Callable[..., EdgeClient], folder: DeviceFolder
) -> None:
    offer = service.offer
    assert make_client().run_once().outcome == "accepted"
    path = folder.bundles / service.bundle.sha256 / MANIFEST_NAME
    written = path.stat()
    path.write_bytes(b"{" * written.st_size)
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    for code in ("bundle_invalid", None):
        service.offer = offer
        assert make_client().run_once().code == code


def test_folder_where_a_file_belongs_is_in_nobodys_way(
    service: FakeService, make_client: Callable[..., EdgeClient], folder: DeviceFolder
) -> None:
    offer = service.offer
    assert make_client().run_once().outcome == "accepted"
    path = folder.bundles / service.bundle.sha256 / "weights/base.bin"
    path.unlink()
    for stray in (path, folder.downloads / "stray"):
        (stray / "within").mkdir(parents=True)
    service.offer = offer
    assert make_client().run_once().outcome == "accepted"
    assert path.is_file()
    assert list(folder.downloads.iterdir()) == []
