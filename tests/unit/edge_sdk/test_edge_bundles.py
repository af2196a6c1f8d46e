from pathlib import Path

import pytest
from fake_bundle import tiny_files
from fake_service import FakeService

from edge_sdk.folder import DeviceFolder
from edge_sdk.transport import bundles
from edge_sdk.transport.bundles import BundleCache
from edge_sdk.transport.downloads import Downloads
from edge_sdk.transport.transport import Transport
from hetlora.bundle import verify_files
from hetlora.digest import sha256_of
from hetlora.errors import BodyTooLarge, BundleInvalid, DeviceTooSmall, DigestMismatch
from hetlora.manifest import MAX_MANIFEST_BYTES
from hetlora.messages.common import ObjectRef


@pytest.fixture
def downloads(transport: Transport, folder: DeviceFolder) -> Downloads:
    return Downloads(transport, folder.downloads)


@pytest.fixture
def cache(downloads: Downloads, folder: DeviceFolder) -> BundleCache:
    return BundleCache(folder.bundles, downloads)


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
    service: FakeService, cache: BundleCache, downloads: Downloads, folder: DeviceFolder
) -> None:
    cache.bundle(service.bundle)
    service.requests.clear()
    verify_files(BundleCache(folder.bundles, downloads).bundle(service.bundle))
    assert service.requests == []


@pytest.mark.parametrize("damaged", ["weights/base.bin", "manifest.json"])
def test_byte_flipped_on_disk_is_found_by_the_next_process_and_mended(
    service: FakeService, cache: BundleCache, downloads: Downloads, folder: DeviceFolder, damaged: str
) -> None:
    _flip_last_byte(cache.bundle(service.bundle).path(damaged))
    service.requests.clear()
    verify_files(BundleCache(folder.bundles, downloads).bundle(service.bundle))
    assert service.fetched() == [damaged]


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
