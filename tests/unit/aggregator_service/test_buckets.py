"""Objects and updates in an S3-compatible store."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import TOKEN, Operator
from service_server import problem, served
from tus_device import TusDevice

from aggregator_service.app import create_app
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.blobs import Blobs
from aggregator_service.storage.bucket import open_bucket
from aggregator_service.storage.store import Store
from aggregator_service.worker.sweep import sweep
from benchmarks.s3_server import S3Server, environment
from hetlora.digest import sha256_of
from hetlora.errors import DigestMismatch, NotFound
from hetlora.tensors import adapter_to_bytes

pytestmark = pytest.mark.skipif(
    find_spec("moto") is None or find_spec("obstore") is None, reason="pip install obstore 'moto[server]'"
)
DATA = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with S3Server() as running:
        yield running.url


@pytest.fixture
def store(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Store:
    """A prefix of its own in the bucket."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    open_bucket.cache_clear()
    (tmp_path / "incoming").mkdir()
    return Store(tmp_path, f"s3://hetlora/{sha256_of(request.node.name.encode())[:8]}")


@pytest.fixture
def blobs(store: Store) -> Blobs:
    return store.blobs("objects")


def names_in(store: Store, folder: str) -> list[str]:
    """Of the objects that the bucket itself lists below a folder."""
    assert store.url is not None
    pages = open_bucket(store.url).list(f"{folder}/")
    return [found["path"].rpartition("/")[2] for page in pages for found in page]


def test_blob_of_a_bucket_is_found_under_its_digest(blobs: Blobs, store: Store) -> None:
    ref = blobs.put(DATA)
    assert (ref.sha256, ref.size_bytes) == (sha256_of(DATA), 1024)
    assert blobs.size_bytes(ref.sha256) == 1024
    assert blobs.read(ref.sha256) == DATA
    assert b"".join(blobs.chunks(ref.sha256, 3, 700)) == DATA[3:700]
    assert b"".join(blobs.chunks(ref.sha256, 1000)) == DATA[1000:]
    assert names_in(store, "objects") == [ref.sha256]
    with blobs.opened(ref.sha256) as file:
        assert file.read() == DATA
        assert len(list(store.incoming.iterdir())) == 1
    assert list(store.incoming.iterdir()) == []
    assert pickle.loads(pickle.dumps(blobs)).read(ref.sha256) == DATA


def test_blob_that_is_no_more_in_the_bucket_is_not_found(blobs: Blobs) -> None:
    sha256 = blobs.put(DATA).sha256
    blobs.remove(sha256)
    blobs.remove(sha256)  # which is no fault
    assert blobs.size_bytes(sha256) is None
    for read in (blobs.read, blobs.chunks, blobs.load):
        with pytest.raises(NotFound):
            read(sha256)
    with pytest.raises(NotFound):
        blobs.verify("file", sha256)
    with pytest.raises(NotFound), blobs.opened(sha256):
        pass


def test_blob_that_changed_in_the_bucket_is_not_read(blobs: Blobs, store: Store) -> None:
    sha256 = blobs.put(DATA).sha256
    assert store.url is not None
    open_bucket(store.url).put(f"objects/{sha256[:2]}/{sha256}", DATA[::-1])
    with pytest.raises(DigestMismatch):
        blobs.read(sha256)
    with pytest.raises(DigestMismatch):
        blobs.verify("file", sha256)
    with pytest.raises(DigestMismatch), blobs.opened(sha256):
        pass


def test_dropped_folder_of_a_bucket_takes_no_other_with_it(store: Store) -> None:
    one, other = store.blobs("updates/round-1"), store.blobs("updates/round-10")
    kept = other.put(DATA)
    one.put(DATA)
    one.drop()
    assert names_in(store, "updates/round-1") == []
    assert other.read(kept.sha256) == DATA


@pytest.fixture
def service(store: Store, clock: FakeClock, tmp_path: Path) -> Iterator[Service]:
    settings = Settings(
        data_dir=tmp_path,
        object_store_url=store.url,
        operator_token=TOKEN,
        port=0,
        worker_interval_seconds=0.1,
    )
    with closing(open_service(settings, clock)) as opened:
        yield opened


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with served(create_app(service), service.settings) as client:
        yield client


def test_round_over_a_bucket_leaves_no_file_on_the_machine(
    service: Service, http: httpx.Client, clock: FakeClock
) -> None:
    operator = Operator(http)
    token, bundle = operator.population(), operator.publish()
    run_id = operator.run(bundle)
    device = FakeDevice(http, clock, 1).enrol(token)
    plan = device.started_plan(2)
    whole = device.fetched(plan.adapter)
    part = device.send("GET", f"/objects/{plan.adapter.sha256}", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    assert problem(device.send("GET", f"/objects/{'0' * 64}")) == (404, "not_found")
    assert device.deliver(make_adapter(2))["state"] == "accepted"
    version = operator.committed(run_id)["adapter_version"]
    assert operator.published(version)[0]
    folders = ("objects", "updates", "incoming")
    assert [path for name in folders for path in (service.settings.data_dir / name).rglob("*")] == []


def test_upload_in_parts_goes_over_a_bucket_and_leaves_nothing_there(
    service: Service, http: httpx.Client, clock: FakeClock
) -> None:
    operator = Operator(http)
    token, bundle = operator.population(), operator.publish()
    operator.run(bundle)
    tus = TusDevice(FakeDevice(http, clock, 1).enrol(token))
    update = adapter_to_bytes(make_adapter(2))
    upload_id = tus.begun(tus.device.started(), update)
    assert tus.patch(upload_id, 0, update[:200]).status_code == 204
    assert service.store.folders("uploads") == {upload_id}
    service.uploads("20261120120000-000000000000").put(b"of an upload whose row went first")
    sweep(service)
    assert service.store.folders("uploads") == {upload_id}
    assert {answer.status_code for answer in tus.in_parts(upload_id, update, 200)} == {204}
    assert service.store.folders("uploads") == set()
    assert names_in(service.store, "updates") == [sha256_of(update)]


def test_updates_of_a_bucket_are_dropped_once_their_round_ended_long_ago(
    service: Service, http: httpx.Client, clock: FakeClock
) -> None:
    operator = Operator(http)
    token, bundle = operator.population(), operator.publish()
    run_id = operator.run(bundle)
    FakeDevice(http, clock, 1).enrol(token).deliver(make_adapter(2))
    version = operator.committed(run_id)["adapter_version"]
    assert len(names_in(service.store, "updates")) == 1
    clock.advance(service.settings.keep_updates_seconds)
    sweep(service)
    assert names_in(service.store, "updates") == []
    assert operator.published(version)[0]
