from __future__ import annotations

import resource
from pathlib import Path

import pytest

from aggregator_service.storage.store import PROBE_BYTES, Store
from hetlora.errors import UnavailableError


def test_store_whose_disk_takes_no_more_cannot_be_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for folder in ("incoming", "objects"):
        (tmp_path / folder).mkdir()
    store.check()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PROBE_BYTES - 1, hard))  # a write then fails as on a full disk
    try:
        with pytest.raises(UnavailableError, match=r"cannot be written; got .*incoming: File too large"):
            store.check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.check()
    assert list(store.incoming.iterdir()) == []
