"""The one SQLite file of a device folder."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from store_files import disk_of

from edge_sdk.device_database import SCHEMA_VERSION, DeviceDatabase
from hetlora.errors import DiskFull, SettingsError, StoreDamaged, UnavailableError

TABLE = "CREATE TABLE IF NOT EXISTS rates (name TEXT PRIMARY KEY, per_second REAL NOT NULL)"


def test_what_a_part_keeps_in_its_table_is_there_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        with closing(DeviceDatabase(tmp_path / "device.sqlite")) as own:
            own.make(TABLE)
            with own.writing() as database:
                database.execute("INSERT OR REPLACE INTO rates VALUES ('disk', 2.5)")
    with closing(DeviceDatabase(tmp_path / "device.sqlite")) as own, own.reading() as database:
        assert database.execute("SELECT * FROM rates").fetchall() == [("disk", 2.5)]
    assert [path.name for path in tmp_path.iterdir()] == ["device.sqlite"]


def test_database_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "device.sqlite"
    with closing(DeviceDatabase(path)):
        assert {stat.S_IMODE(own.stat().st_mode) for own in tmp_path.iterdir()} == {0o600}
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="is open to other users; got mode 0640; expected mode 0600"):
        DeviceDatabase(path)


def test_database_of_a_later_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "device.sqlite"
    with closing(DeviceDatabase(path)) as own, own.writing() as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(SettingsError, match="written by a later version of hetlora; got version 2 "):
        DeviceDatabase(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.sqlite"
    path.write_bytes(b"no database, but long enough to have a header" * 10)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="the device's database cannot be opened"):
        DeviceDatabase(path)


def test_database_of_which_a_page_rotted_says_so(tmp_path: Path) -> None:
    path = tmp_path / "device.sqlite"
    with closing(DeviceDatabase(path)) as own:
        own.make(TABLE)
        with own.writing() as database:
            database.executemany("INSERT INTO rates VALUES (?, 1)", [(f"rate {n}",) for n in range(2000)])
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    with (
        closing(DeviceDatabase(path)) as own,
        pytest.raises(StoreDamaged, match="the device's database is damaged"),
        own.reading() as database,
    ):
        database.execute("SELECT count(*) FROM rates").fetchone()


def test_transaction_that_does_not_fit_the_disk_changes_nothing(tmp_path: Path) -> None:
    with closing(DeviceDatabase(tmp_path / "device.sqlite")) as own:
        own.make("CREATE TABLE IF NOT EXISTS tensors (data BLOB NOT NULL)")
        with (
            disk_of(200_000),
            pytest.raises(DiskFull, match="the device's database cannot grow"),
            own.writing() as database,
        ):
            database.execute("INSERT INTO tensors VALUES (zeroblob(1000000))")
        with own.reading() as database:
            assert database.execute("SELECT count(*) FROM tensors").fetchone() == (0,)


def refuse(own: DeviceDatabase, name: str) -> None:
    """What SQLite does where the system refuses, within a transaction."""
    refusal = sqlite3.OperationalError("disk I/O error")
    refusal.sqlite_errorname = name
    with own.writing() as database:
        database.execute("INSERT INTO rates VALUES ('disk', 1)")
        raise refusal


@pytest.mark.parametrize(
    "name", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_READ", "SQLITE_READONLY", "SQLITE_CANTOPEN"]
)
def test_card_that_refuses_for_once_is_told_as_what_may_pass(tmp_path: Path, name: str) -> None:
    with closing(DeviceDatabase(tmp_path / "device.sqlite")) as own:
        own.make(TABLE)
        with pytest.raises(UnavailableError, match=f"cannot be read or written; got {name}"):
            refuse(own, name)
        with own.reading() as database:
            assert database.execute("SELECT count(*) FROM rates").fetchone() == (0,)


def test_database_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    with closing(DeviceDatabase(tmp_path / "device.sqlite")) as own:
        own.make(TABLE)
        with own.reading() as database:
            database.execute("PRAGMA query_only = ON")
        with pytest.raises(UnavailableError, match="got SQLITE_READONLY"), own.writing() as database:
            database.execute("INSERT INTO rates VALUES ('disk', 1)")
