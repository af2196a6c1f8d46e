"""Blobs in a bucket of any S3-compatible store, by `obstore`.

Credentials, region and endpoint come from the environment under the names that S3's own tools use (AWS_...).
A PUT is atomic there, and what is answered is durable.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Final, cast

from aggregator_service.storage.blobs import CHUNK_BYTES, Blobs
from aggregator_service.storage.incoming import IncomingBlob
from hetlora.errors import DependencyMissing, NotFound, UnavailableError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Store

# Requests wait meanwhile, and are few at a time: whoever asked can ask again. (obstore: 3 minutes.)
RETRIES: Final = timedelta(seconds=5)
# Of the connection. Here, as the environment's own (AWS_ALLOW_HTTP) would count for nothing beside others'.
_OPTIONS: Final[Mapping[str, str]] = {
    # For the first byte of an answer, and from one to the next: less than others wait for a lock, and enough
    # for 5 MiB, as much as one PUT carries, at 6 Mbit/s.
    "read_timeout": "8 seconds",
    "timeout": "1 hour",  # a stream to a slow device takes its time (obstore: 30 seconds)
}
_TOLD_BY_ENVIRONMENT: Final = ("allow_http", "allow_invalid_certificates", "proxy_url", *_OPTIONS)


@cache
def open_bucket(url: str) -> S3Store:
    """The bucket of `s3://NAME[/PREFIX]`, one client for this process.

    Raises:
        DependencyMissing: obstore is not installed.
    """
    try:
        from obstore.store import S3Store
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            "object stores are not installed", got=f"no module {error.name}", expected="pip install obstore"
        ) from error
    told = {name: os.environ.get(f"AWS_{name.upper()}") for name in _TOLD_BY_ENVIRONMENT}
    options = {**_OPTIONS, **{name: value for name, value in told.items() if value}}
    retrying: RetryConfig = {"retry_timeout": RETRIES}
    return S3Store.from_url(url, retry_config=retrying, client_options=cast("ClientConfig", options))


@contextmanager
def _asking() -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        raise UnavailableError("the object store does not answer now", got=type(error).__name__) from error


def folders_of(url: str, parent: str) -> set[str]:
    """The names of the folders in the folder `parent` of the bucket at `url`."""
    with _asking():
        found = open_bucket(url).list_with_delimiter(f"{parent}/")
    return {prefix.rpartition("/")[2] for prefix in found["common_prefixes"]}


@dataclass(frozen=True)
class BlobBucket(Blobs):
    """Blobs under `folder` of the bucket at `url`."""

    url: str
    folder: str

    def key(self, sha256: str) -> str:
        """The name of the blob of this digest in the bucket."""
        return f"{self.folder}/{sha256[:2]}/{sha256}"

    def size_bytes(self, sha256: str) -> int | None:
        with _asking():
            try:
                return int(open_bucket(self.url).head(self.key(sha256))["size"])
            except FileNotFoundError:
                return None

    def chunks(self, sha256: str, first: int = 0, stop: int | None = None) -> Generator[bytes, None, None]:
        with _asking():
            try:
                found = open_bucket(self.url).get(
                    self.key(sha256),
                    options={"range": (first, stop) if stop is not None else {"offset": first}},
                )
            except FileNotFoundError as error:
                raise NotFound("no such object", got=sha256) from error

        def pieces() -> Generator[bytes, None, None]:
            with _asking():
                for piece in found.stream(min_chunk_size=CHUNK_BYTES):
                    yield bytes(piece)

        return pieces()

    def load(self, sha256: str) -> bytes:
        with _asking():
            try:
                return bytes(open_bucket(self.url).get(self.key(sha256)).bytes())
            except FileNotFoundError as error:
                raise NotFound("no such object", got=sha256) from error

    def remove(self, sha256: str) -> None:
        with _asking():
            open_bucket(self.url).delete(self.key(sha256))

    def drop(self) -> None:
        with _asking():
            for page in open_bucket(self.url).list(self.folder + "/"):
                open_bucket(self.url).delete([found["path"] for found in page])

    def _store(self, blob: IncomingBlob) -> None:
        with _asking():
            open_bucket(self.url).put(self.key(blob.sha256), blob.path)
