"""`hetlora serve` as a process of its own, on data folders that it cannot use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator_service.service import TOKEN_FILE


def serve(data_dir: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hetlora.cli", "serve", "--port", "0", "--data-dir", str(data_dir)]
    environment = os.environ | {"COLUMNS": "1000"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def below_a_device(folder: Path) -> Path:
    return Path("/dev/null/x")


def with_a_database_of_zeros(folder: Path) -> Path:
    (folder / "hetlora.sqlite").write_bytes(bytes(8192))
    return folder


def with_a_folder_for_a_database(folder: Path) -> Path:
    (folder / "hetlora.sqlite").mkdir()
    return folder


def with_a_folder_for_a_token(folder: Path) -> Path:
    (folder / TOKEN_FILE).mkdir()
    return folder


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (below_a_device, "Not a directory"),
        (with_a_database_of_zeros, "file is not a database"),
        (with_a_folder_for_a_database, "unable to open database file"),
        (with_a_folder_for_a_token, TOKEN_FILE),
    ],
)
def test_data_dir_that_cannot_be_used_is_told_in_one_message(
    tmp_path: Path, spoil: Callable[[Path], Path], told: str
) -> None:
    data_dir = spoil(tmp_path)
    ended = serve(data_dir)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith(f"error settings_invalid: data_dir cannot be used; got {data_dir}: ")
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1
