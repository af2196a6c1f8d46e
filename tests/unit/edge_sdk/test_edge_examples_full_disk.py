"""A disk that is full: what is told of it, and that nothing is lost nor left behind unsaid."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from store_files import bytes_in, disk_of, wrapped_keys

from edge_sdk.examples import Example, ExampleStore, SplitExampleStore
from edge_sdk.session.visit import failure_of
from hetlora.errors import DiskFull, HetloraError, StoreDamaged, StoreKeyWrong, UnavailableError

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))


def _texts(store: ExampleStore) -> list[str]:
    return [example.text for example in store if isinstance(example, Example)]


def _write_large(path: Path, key: bytes | None = None) -> None:
    """A file that is much larger than what any one change of it writes to the log."""
    with ExampleStore(path, encryption_key=key) as store:
        store.put_many(Example(f"{number}" * 90_000, "x", f"{number}") for number in range(10))


def _owes(path: Path) -> bool:
    """Whether the file says that it is still to be written anew."""
    with sqlite3.connect(path) as database:
        [(marks,)] = database.execute("SELECT count(*) FROM facts WHERE name = 'rebuild'")
    database.close()
    return bool(marks)


@pytest.mark.parametrize("key", [None, KEY])
def test_full_disk_is_told_and_loses_nothing(tmp_path: Path, key: bytes | None) -> None:
    path = tmp_path / "examples.sqlite"
    with ExampleStore(path, encryption_key=key) as store:
        store.put("kept", "x", key="k")
        with disk_of(300_000), pytest.raises(DiskFull, match="cannot grow") as caught:
            store.put_many([Example("new", "y", "k"), *(Example("x" * 9000, "x") for _ in range(100))])
        assert caught.value.code == "disk_full"
        assert list(store) == [Example("kept", "x", "k")]
        store.put("after it", "x")
    with ExampleStore(path, encryption_key=key) as store:
        assert _texts(store) == ["kept", "after it"]


def test_full_disk_keeps_no_store_from_being_read_though_something_in_it_has_expired(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    with ExampleStore(path, clock=lambda: 1000.0) as store:
        store.put("gone", "x", keep_seconds=10)
        store.put("kept", "x")
    with ExampleStore(path, clock=lambda: 0.0):  # another process, which has it open
        with disk_of(1), ExampleStore(path, clock=lambda: 1010.0) as store:
            assert _texts(store) == ["kept"]
            with pytest.raises(DiskFull):
                store.put("more", "x")
        with ExampleStore(path, clock=lambda: 1010.0) as store:
            assert store.remove_expired() == 0  # it was when it was opened
            assert _texts(store) == ["kept"]


def test_full_disk_on_which_nothing_can_be_opened_is_told(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    with ExampleStore(path) as store:
        store.put("kept", "x")
    with disk_of(1000), pytest.raises(DiskFull, match="cannot grow"):
        ExampleStore(path)
    with ExampleStore(path) as store:
        assert _texts(store) == ["kept"]


def test_store_that_took_a_key_opens_though_there_is_no_room_to_write_it_anew(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    _write_large(path)
    with sqlite3.connect(path) as database:
        [(root,)] = database.execute("SELECT value FROM facts WHERE name = 'root'")
    database.close()
    full = path.stat().st_size
    for _ in range(2):  # the key is in force at once, and each start may find the disk as full
        with disk_of(full), ExampleStore(path, encryption_key=KEY) as store:
            assert store.count() == 10
            with pytest.raises(UnavailableError, match="are removed, but older bytes"):
                store.delete("none")
        assert _owes(path)
    with ExampleStore(path, encryption_key=KEY) as store:
        assert store.count() == 10
        assert store.delete("3")
        assert not _owes(path)
        assert root not in bytes_in(tmp_path)


def test_deleting_once_more_makes_up_for_what_was_not_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    _write_large(path)
    full = path.stat().st_size
    with disk_of(full):
        store = ExampleStore(path, encryption_key=KEY)
    with store:
        assert _owes(path)
        assert store.delete("3")
        assert not _owes(path)


def test_changing_the_key_tells_that_it_is_changed_though_the_old_bytes_are_there(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    _write_large(path)
    with ExampleStore(path) as store:
        with (
            disk_of(path.stat().st_size),
            pytest.raises(UnavailableError, match="is under the new key, but older bytes"),
        ):
            store.rekey(KEY)
        store.put("after it", "x")
        assert store.count() == 11
    with pytest.raises(StoreKeyWrong):
        ExampleStore(path)
    with ExampleStore(path, encryption_key=KEY) as store:
        assert store.count() == 11
        assert not _owes(path)


def test_changing_the_key_without_room_for_it_leaves_both_sides_as_they_were(tmp_path: Path) -> None:
    files = tmp_path / "held_out.sqlite", tmp_path / "examples.sqlite"
    with (
        ExampleStore(files[0], encryption_key=KEY) as held_out,
        SplitExampleStore(files[1], held_out, 0.5, encryption_key=KEY) as store,
    ):
        store.put_many(Example(f"text {number}" * 50, "x", f"{number}") for number in range(200))
        before = list(store), list(held_out)
        with disk_of(1000), pytest.raises(DiskFull):
            store.rekey(OTHER)
        assert (list(store), list(held_out)) == before
    for path in files:
        with ExampleStore(path, encryption_key=KEY) as store:
            assert store.count() > 0


def _delete(store: ExampleStore) -> None:
    with pytest.raises(UnavailableError, match="are removed, but older bytes are not yet overwritten"):
        store.delete("secret")


def _replace(store: ExampleStore) -> None:
    store.put("nothing of it", "x", key="secret")  # it is done, and no error may say otherwise


@pytest.mark.parametrize("remove", [_delete, _replace])
def test_key_that_a_full_disk_left_in_the_files_is_owed_until_it_is_gone(
    tmp_path: Path, remove: Callable[[ExampleStore], None]
) -> None:
    path = tmp_path / "examples.sqlite"
    _write_large(path)
    with ExampleStore(path) as store:
        store.put("the password is 1234", "x", key="secret")  # in the log, as is its key
        wrapped = wrapped_keys(path)[store.ids()[-1]]
        with disk_of(path.stat().st_size // 2):  # the log may grow; the file has no place for what is in it
            remove(store)
        assert "the password is 1234" not in _texts(store)
        assert wrapped in bytes_in(tmp_path)
        store.delete("secret")  # once more, as it is told to
        assert wrapped not in bytes_in(tmp_path)


def _full(path: Path) -> None:
    with ExampleStore(path) as store, disk_of(1000):
        store.put("x" * 9000, "x")


def _in_use(path: Path) -> None:
    with ExampleStore(path, busy_seconds=0.05) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            store.put("a", "x")
        finally:
            other.close()


def _torn(path: Path) -> None:
    _write_large(path)
    path.write_bytes(path.read_bytes()[:100_000])
    ExampleStore(path).close()


@pytest.mark.parametrize(
    ("error", "fault"), [(DiskFull, _full), (UnavailableError, _in_use), (StoreDamaged, _torn)]
)
def test_service_is_not_told_where_the_store_lies(
    tmp_path: Path, error: type[HetloraError], fault: Callable[[Path], None]
) -> None:
    with pytest.raises(error) as caught:
        fault(tmp_path / "examples.sqlite")
    assert type(caught.value) is error
    assert str(tmp_path) not in failure_of(caught.value).message
