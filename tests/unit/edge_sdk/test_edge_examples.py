import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.examples import Example, ExampleStore
from hetlora.errors import DataError, SettingsError, UnavailableError


def _texts(store: ExampleStore) -> list[str]:
    return [example.text for example in store]


def test_examples_outlive_the_store_object(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put("snow", "cold", key="a")
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        assert list(store) == [Example("snow", "cold", "a")]


def test_oldest_examples_go_first(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite", max_examples=2) as store:
        store.put_many([Example("one", "x"), Example("two", "x"), Example("three", "x")])
        assert _texts(store) == ["two", "three"]


def test_same_key_replaces_and_keeps_its_age(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite", max_examples=2) as store:
        store.put("old", "x", key="k")
        store.put("other", "x")
        store.put("new", "y", key="k")
        assert list(store) == [Example("new", "y", "k"), Example("other", "x")]
        store.put("newest", "x")
        assert _texts(store) == ["other", "newest"]


def test_examples_without_key_never_replace_each_other(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put("same", "x")
        store.put("same", "x")
        assert store.count() == 2


def test_labels_are_counted(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put_many([Example("a", "warm"), Example("b", "cold"), Example("c", "warm")])
        assert store.labels() == {"cold": 1, "warm": 2}


def test_delete_tells_whether_there_was_one(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put("a", "x", key="k")
        assert store.delete("k")
        assert not store.delete("k")
        assert store.count() == 0


def test_clear_removes_all(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put_many([Example("a", "x"), Example("b", "x")])
        store.clear()
        assert store.count() == 0


def test_get_keeps_the_order_asked_for_and_skips_the_deleted(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put_many([Example("a", "x", "a"), Example("b", "x", "b"), Example("c", "x", "c")])
        first, second, third = store.ids()
        store.delete("b")
        assert [example.text for example in store.get([third, second, first, third])] == ["c", "a", "c"]


def test_more_rows_than_one_statement_may_name_are_read(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put_many(Example(f"text {number}", "x") for number in range(1201))
        assert _texts(store) == [f"text {number}" for number in range(1201)]


def test_refused_example_leaves_none_of_its_batch_behind(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        with pytest.raises(DataError, match="label of an example is empty"):
            store.put_many(Example(text, label) for text, label in [("fine", "x"), ("not", " ")])
        assert store.count() == 0


@pytest.mark.parametrize("text", ["", "  \n", "half a pair \ud83d"])
def test_text_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with (
        ExampleStore(tmp_path / "examples.sqlite") as store,
        pytest.raises(DataError, match="text of an example"),
    ):
        store.put(text, "x")


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "examples.sqlite").write_bytes(b"no database, but long enough to have a header" * 10)
    with pytest.raises(SettingsError, match="cannot be opened; got file is not a database"):
        ExampleStore(tmp_path / "examples.sqlite")


def test_store_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="max_examples; got 0"):
        ExampleStore(tmp_path / "examples.sqlite", max_examples=0)


def test_another_thread_and_another_store_may_put(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    with ExampleStore(path) as store, ExampleStore(path) as other:
        threads = [
            threading.Thread(target=lambda s=s: [s.put("text", "x") for _ in range(20)])
            for s in (store, store, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.count() == other.count() == 60


def test_closed_store_refuses_work(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path / "examples.sqlite")
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        store.count()


@settings(max_examples=30, deadline=None)  # the machine may be busy
@given(texts=st.lists(st.text(min_size=1).filter(str.strip), max_size=20), bound=st.integers(1, 10))
def test_store_holds_the_newest_up_to_its_bound(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], bound: int
) -> None:
    folder = tmp_path_factory.mktemp("law")
    with ExampleStore(folder / "examples.sqlite", max_examples=bound) as store:
        for text in texts:
            store.put(text, "x")
        assert _texts(store) == texts[-bound:] if texts else store.count() == 0


def test_examples_may_be_put_that_are_made_of_those_that_are_there(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put_many([Example("a", "x"), Example("b", "x")])
        store.put_many(Example(f"{e.text} again", "y") for e in store if isinstance(e, Example))
        assert _texts(store) == ["a", "b", "a again", "b again"]


def test_store_is_not_kept_from_others_while_the_examples_for_it_are_made(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store, ThreadPoolExecutor(1) as thread:

        def made() -> Iterator[Example]:
            thread.submit(store.put, "by another thread", "x").result(timeout=60)
            yield Example("made", "x")

        store.put_many(made())
        assert _texts(store) == ["by another thread", "made"]


def test_process_that_keeps_the_store_from_others_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    with ExampleStore(path, busy_seconds=0.05) as store:
        store.put("a", "x")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match="is in use; got database is locked"):
            store.put("b", "x")
        assert _texts(store) == ["a"]
        other.close()
        store.put("b", "x")
        assert _texts(store) == ["a", "b"]


def test_file_is_closed_to_other_users(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put("a", "x")
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_path_of_a_store_may_be_text(tmp_path: Path) -> None:
    with ExampleStore(str(tmp_path / "examples.sqlite")) as store:
        store.put("too warm", "cold")
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        assert store.count() == 1
