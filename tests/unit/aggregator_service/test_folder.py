"""Files of this machine: what is dropped, and what processes that died have left."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from fake_clock import FakeClock

from aggregator_service.service import open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.folder import BlobFolder


def test_dropped_folder_is_gone_with_all_that_it_has(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path, tmp_path / "updates" / "round")
    for data in (b"one", b"another"):
        folder.put(data)
    (folder.root / "aa").mkdir(exist_ok=True)
    folder.drop()
    assert list((tmp_path / "updates").iterdir()) == []
    folder.drop()  # again, as after a crash


def test_folder_that_cannot_be_read_is_not_taken_for_dropped(tmp_path: Path) -> None:
    (tmp_path / "round").write_text("a file")
    with pytest.raises(NotADirectoryError):
        BlobFolder(tmp_path, tmp_path / "round").drop()


def test_start_of_any_role_removes_what_processes_that_died_have_left(
    settings: Settings, clock: FakeClock
) -> None:
    incoming = settings.data_dir / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    for name in ("old", "young"):
        (incoming / name).touch()
    os.utime(incoming / "old", (0, 0))
    with closing(open_service(settings.model_copy(update={"role": "api"}), clock)):
        assert [path.name for path in incoming.iterdir()] == ["young"]
