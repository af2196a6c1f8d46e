"""The object store of a service, its bytes read without the service's own code."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from benchmarks.s3_server import BUCKET, KEY, REGION, S3Server, environment
from benchmarks.service.gate import Gate
from hetlora.errors import DependencyMissing

if TYPE_CHECKING:
    from obstore.store import S3Store

StoreName = Literal["folder", "bucket"]
# The bytes of a digest in a folder such as `objects` or `updates/ROUND`; OSError says why there are none.
Read = Callable[[str, str], bytes]


def in_folder(data_dir: Path) -> Read:
    """Reads what a service without a bucket keeps in its data folder."""
    return lambda folder, sha256: (data_dir / folder / sha256[:2] / sha256).read_bytes()


class Bucket:
    """A bucket on a server of its own, behind a gate at which it can be slow or away; for a block.

    The server holds the objects in memory. So it may hang, but not be killed.
    """

    def __init__(self) -> None:
        self.server = S3Server()
        self.gate = Gate(self.server.port)
        self._store = _opened(self.server.url)
        self._ending = ExitStack()

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables by which a service finds it."""
        return {
            **environment(f"http://127.0.0.1:{self.gate.port}"),
            "HETLORA_OBJECT_STORE_URL": f"s3://{BUCKET}",
        }

    def read(self, folder: str, sha256: str) -> bytes:
        """See `Read`; past the gate."""
        key = f"{folder}/{sha256[:2]}/{sha256}"
        try:
            return bytes(self._store.get(key).bytes())
        except FileNotFoundError as error:  # obstore's has no number
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key) from error

    def __enter__(self) -> Bucket:
        for part in (self.server, self.gate):
            self._ending.enter_context(part)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()


def _opened(url: str) -> S3Store:
    try:
        from obstore.store import S3Store
    except ModuleNotFoundError as error:
        raise DependencyMissing("no bucket to open", expected="pip install obstore 'moto[server]'") from error
    return S3Store(
        BUCKET,
        endpoint=url,
        region=REGION,
        access_key_id=KEY,
        secret_access_key=KEY,
        client_options={"allow_http": True},
    )
