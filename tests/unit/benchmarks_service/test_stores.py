"""Bytes that a service has stored, read without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from aggregator_service.storage.bucket import open_bucket
from aggregator_service.storage.store import Store
from benchmarks.service.stores import Bucket, Read, in_folder

STORES = [
    "folder",
    pytest.param(
        "bucket",
        marks=pytest.mark.skipif(
            find_spec("moto") is None or find_spec("obstore") is None,
            reason="pip install obstore 'moto[server]'",
        ),
    ),
]
Stored = tuple[Callable[[str, bytes], str], Read]


@pytest.fixture(params=STORES)
def stored(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stored]:
    """How the service stores bytes in a folder of either store, and how a benchmark reads them."""
    (tmp_path / "incoming").mkdir()
    with ExitStack() as stack:
        url, read = None, in_folder(tmp_path)
        if request.param == "bucket":
            bucket = stack.enter_context(Bucket())
            for name, value in bucket.settings.items():
                monkeypatch.setenv(name, value)
            open_bucket.cache_clear()
            url, read = bucket.settings["HETLORA_OBJECT_STORE_URL"], bucket.read
        store = Store(tmp_path, url)
        yield lambda folder, data: store.blobs(folder).put(data).sha256, read
    open_bucket.cache_clear()


def test_what_the_service_stored_is_read_as_it_is(stored: Stored) -> None:
    put, read = stored
    digest = put("updates/round", b"bytes")
    assert read("updates/round", digest) == b"bytes"


def test_what_is_not_there_is_told_as_such(stored: Stored) -> None:
    put, read = stored
    digest = put("objects", b"bytes")
    with pytest.raises(FileNotFoundError) as error:
        read("updates/round", digest)
    assert error.value.strerror == "No such file or directory"
