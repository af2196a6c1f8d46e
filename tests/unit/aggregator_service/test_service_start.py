"""`hetlora serve` as a process of its own, on data folders that it cannot use."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from aggregator_service.service import TOKEN_FILE, database_url
from aggregator_service.settings import Settings
from hetlora.errors import SettingsError


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


def with_half_of_the_tables(folder: Path) -> Path:
    with closing(sqlite3.connect(folder / "hetlora.sqlite")) as connection:
        connection.execute("CREATE TABLE runs (id TEXT)")
    return folder


NO_DATABASE = "the database cannot be used; got sqlite:///{data_dir}/hetlora.sqlite: "


@pytest.mark.parametrize(
    ("spoil", "begin", "told"),
    [
        (below_a_device, "data_dir cannot be used; got {data_dir}: ", "Not a directory"),
        (with_a_folder_for_a_token, "data_dir cannot be used; got {data_dir}: ", TOKEN_FILE),
        (with_a_database_of_zeros, NO_DATABASE, "file is not a database"),
        (with_half_of_the_tables, NO_DATABASE, "table runs already exists"),
        (with_a_folder_for_a_database, NO_DATABASE, "unable to open database file"),
    ],
)
def test_data_dir_that_cannot_be_used_is_told_in_one_message(
    tmp_path: Path, spoil: Callable[[Path], Path], begin: str, told: str
) -> None:
    data_dir = spoil(tmp_path)
    ended = serve(data_dir)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith("error settings_invalid: " + begin.format(data_dir=data_dir))
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_database_that_does_not_answer_is_unavailable_to_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETLORA_DATABASE_URL", "postgresql://user:hunter2@127.0.0.1:1/x?password=hunter2")
    ended = serve(tmp_path)
    assert (ended.returncode, ended.stdout) == (5, "")
    assert ended.stderr.startswith("error unavailable: the database cannot be used now; got postgresql")
    assert "hunter2" not in ended.stderr


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:hun@ter2@127.0.0.1:1/x",
        "postgresql://user:hun@ter2/@127.0.0.1:1/x",
        "postgresql://user@127.0.0.1:ter2/x",
        "postgresql://[::1/ter2",
    ],
)
def test_address_of_a_database_that_cannot_be_read_is_not_repeated(address: str) -> None:
    with pytest.raises(SettingsError, match=r"^HETLORA_DATABASE_URL .* percent-encoded") as told:
        database_url(Settings(database_url=SecretStr(address)))
    assert "ter2" not in str(told.value)
