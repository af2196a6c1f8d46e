"""A store under a key of the app's: who has the files alone reads nothing, and a wrong key loses nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from store_files import bytes_in, wrapped_keys

from edge_sdk.examples import (
    AnyExample,
    ChatExample,
    Example,
    ExampleStore,
    ImageExample,
    TextExample,
    open_stores,
)
from hetlora.errors import SettingsError, StoreDamaged, StoreKeyWrong, UnavailableError

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
EXAMPLES: list[AnyExample] = [
    Example("where is my parcel", "delivery", "message 17", expires_at=4e9),
    ImageExample(bytes(12), "cat", "image 3", shape=(2, 2, 3)),
    ChatExample.of([("user", "how are you"), ("assistant", "rather well")], "chat 9"),
    TextExample("a diary's page", "page 1"),
    Example("without a key", "of its own"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "examples.sqlite"


def _write(path: Path, key: bytes | None) -> None:
    with ExampleStore(path, encryption_key=key) as store:
        store.put_many(EXAMPLES)


@pytest.mark.parametrize("key", [None, KEY])
def test_examples_of_all_kinds_come_back_as_they_were_put(path: Path, key: bytes | None) -> None:
    _write(path, key)
    with ExampleStore(path, encryption_key=key) as store:
        assert list(store) == EXAMPLES
        assert store.kinds() == {"chat": 1, "image": 1, "labelled_text": 2, "text": 1}
        assert store.labels() == {"cat": 1, "delivery": 1, "of its own": 1}


def test_neither_texts_nor_labels_nor_names_are_in_the_files(path: Path, tmp_path: Path) -> None:
    _write(path, KEY)
    left = bytes_in(tmp_path)
    for text in ("parcel", "delivery", "message 17", "image 3", "rather well", "diary", "page 1"):
        assert text.encode() not in left
    assert KEY not in left


def test_lengths_of_labels_do_not_show(path: Path) -> None:
    with ExampleStore(path, encryption_key=KEY) as store:
        store.put_many([Example("text", "no"), Example("text", "rather yes than no")])
    with sqlite3.connect(path) as database:
        lengths = {row[0] for row in database.execute("SELECT length(summary) FROM examples")}
    database.close()
    assert len(lengths) == 1


@pytest.mark.parametrize(("key", "got"), [(OTHER, "another key"), (None, "no key")])
def test_wrong_key_is_told_and_nothing_is_lost(path: Path, key: bytes | None, got: str) -> None:
    _write(path, KEY)
    before = path.read_bytes()
    with pytest.raises(StoreKeyWrong, match=rf"is encrypted; got {got} \(.*\); expected the key") as caught:
        ExampleStore(path, encryption_key=key)
    assert caught.value.code == "store_key_wrong"
    assert path.read_bytes() == before
    with ExampleStore(path, encryption_key=KEY) as store:
        assert list(store) == EXAMPLES


@pytest.mark.parametrize("key", [b"short", "x" * 32, bytes(33), lambda: b"short", lambda: None])
def test_what_is_no_key_is_refused_and_not_quoted(path: Path, key: object) -> None:
    with pytest.raises(SettingsError, match="expected 32 random bytes") as caught:
        ExampleStore(path, encryption_key=key)  # type: ignore[arg-type]
    assert "short" not in str(caught.value)
    assert not path.exists()


def test_keystore_is_asked_for_the_key_once_for_both_stores(tmp_path: Path) -> None:
    asked = []

    def keystore() -> bytes:
        asked.append("asked")
        return KEY

    stores = open_stores(tmp_path / "examples.sqlite", tmp_path / "held.sqlite", 0.5, encryption_key=keystore)
    stores[0].put("snow", "cold")
    for store in stores:
        store.close()
    assert asked == ["asked"]
    _write(tmp_path / "examples.sqlite", KEY)


def test_store_that_was_not_encrypted_is_from_then_on(path: Path, tmp_path: Path) -> None:
    _write(path, None)
    with sqlite3.connect(path) as database:
        [(root,)] = database.execute("SELECT value FROM facts WHERE name = 'root'")
    database.close()
    before = wrapped_keys(path)
    assert root in bytes_in(tmp_path)

    with ExampleStore(path, encryption_key=KEY) as store:
        assert list(store) == EXAMPLES
        assert store.delete("message 17")  # names are looked up under the new key

    left = bytes_in(tmp_path)
    assert root not in left
    assert not any(wrapped in left for wrapped in before.values())
    with pytest.raises(StoreKeyWrong):
        ExampleStore(path)


def test_store_takes_another_key_whole(path: Path, tmp_path: Path) -> None:
    _write(path, KEY)
    before = wrapped_keys(path)
    with ExampleStore(path, encryption_key=KEY) as store:
        store.rekey(OTHER)
        assert not any(wrapped in bytes_in(tmp_path) for wrapped in before.values())
        store.put("now under the other", "x", key="message 17")
        assert store.count() == len(EXAMPLES)
    with pytest.raises(StoreKeyWrong):
        ExampleStore(path, encryption_key=KEY)
    with ExampleStore(path, encryption_key=OTHER) as store:
        assert list(store)[1:] == EXAMPLES[1:]


def test_stores_of_which_one_took_the_new_key_before_a_kill_both_have_it_after(tmp_path: Path) -> None:
    files = tmp_path / "examples.sqlite", tmp_path / "held_out.sqlite"
    for path in files:
        _write(path, KEY)
    with ExampleStore(files[1], encryption_key=KEY) as store:
        store.rekey(OTHER)
    for previous in (KEY, None):  # none is needed any more, once both have it
        stores = open_stores(*files, None, encryption_key=OTHER, previous_encryption_key=previous)
        assert [list(store) for store in stores] == [EXAMPLES, EXAMPLES]
        for store in stores:
            store.close()


def test_both_sides_of_a_store_take_another_key(tmp_path: Path) -> None:
    files = tmp_path / "examples.sqlite", tmp_path / "held_out.sqlite"
    store, held_out = open_stores(*files, 0.5, encryption_key=KEY)
    store.put_many(Example(f"text {number}", "x", f"{number}") for number in range(40))
    before = list(store), list(held_out)
    store.rekey(lambda: OTHER)
    assert (list(store), list(held_out)) == before
    store.close()
    held_out.close()
    for path, examples in zip(files, before, strict=True):
        with ExampleStore(path, encryption_key=OTHER) as one:
            assert list(one) == examples != []


def test_changing_the_key_once_more_reaches_the_side_that_was_not(tmp_path: Path) -> None:
    files = tmp_path / "examples.sqlite", tmp_path / "held_out.sqlite"
    store, held_out = open_stores(*files, 0.5, encryption_key=KEY, busy_seconds=0.05)
    store.put_many(Example(f"text {number}", "x", f"{number}") for number in range(40))
    before = list(store), list(held_out)
    other = sqlite3.connect(files[0], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="is in use"):
        store.rekey(OTHER)
    other.close()
    assert (list(store), list(held_out)) == before
    store.rekey(OTHER)
    assert (list(store), list(held_out)) == before
    store.close()
    held_out.close()
    for one in open_stores(*files, 0.5, encryption_key=OTHER):
        assert one.count() > 0
        one.close()


def test_store_open_elsewhere_while_it_takes_another_key_is_told_so_and_damages_nothing(path: Path) -> None:
    with (
        ExampleStore(path, encryption_key=KEY) as store,
        ExampleStore(path, encryption_key=KEY) as other,
    ):
        store.put("snow", "cold", key="a")
        store.rekey(OTHER)
        for use in (lambda: other.put("sun", "warm"), lambda: other.get([1]), other.labels):
            with pytest.raises(StoreKeyWrong, match="while it was open"):
                use()
        assert list(store) == [Example("snow", "cold", "a")]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE examples SET kind = 'text' WHERE id = 1",  # of another kind
        "UPDATE examples SET content = (SELECT content FROM examples WHERE id = 2) WHERE id = 1",
        "UPDATE examples SET content = summary, summary = content WHERE id = 1",
        "UPDATE examples SET slot = -slot; UPDATE examples SET slot = 3 + slot",  # each the other's key
        "UPDATE examples SET id = 3 WHERE id = 1",
        "UPDATE examples SET content = x'00' WHERE id = 1",
    ],
)
def test_row_that_somebody_moved_or_changed_is_refused(path: Path, damage: str) -> None:
    with ExampleStore(path, encryption_key=KEY) as store:
        store.put_many([Example("a text", "x"), Example("another", "x")])
    database = sqlite3.connect(path)
    database.executescript(damage)
    database.close()
    with (
        ExampleStore(path, encryption_key=KEY) as store,
        pytest.raises(StoreDamaged, match="not what was written") as caught,
    ):
        list(store)
    assert "text" not in str(caught.value).replace("labelled_text", "").replace("|text|", "")
