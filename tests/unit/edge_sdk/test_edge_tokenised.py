"""Tokens of examples: made when a batch needs them, kept beside them, and gone with them."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fake_bundle import bundle_on_disk, stamped
from store_files import bytes_in, wrapped_keys

from edge_sdk.batching.batches import batching_of, draw_batches
from edge_sdk.batching.collation import TokenRow
from edge_sdk.batching.tokenised import Tokenised, encoding_of
from edge_sdk.examples import AnyExample, Example, ExampleStore
from hetlora.errors import StoreDamaged
from hetlora.messages.device import TrainingSettings


class Counting:
    """Makes of a text the numbers of its characters, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, example: AnyExample) -> TokenRow:
        assert isinstance(example, Example)
        self.asked.append(example.text)
        return TokenRow([ord(letter) for letter in example.text], [0], [-100, 2**31 - 1])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExampleStore]:
    with ExampleStore(tmp_path / "examples.sqlite", encryption_key=bytes(32)) as store:
        store.put_many([Example("ab", "x", "first"), Example("c", "x", "second")])
        yield store


def test_tokens_are_made_when_they_are_asked_for_and_once(store: ExampleStore) -> None:
    make = Counting()
    rows = Tokenised(store, make, b"encoding")
    first, second = rows.ids()
    assert make.asked == []
    assert rows.get([second]) == [TokenRow([99], [0], [-100, 2**31 - 1])]
    assert make.asked == ["c"]
    assert [row.ids for row in rows.get([first, second, first])] == [[97, 98], [99], [97, 98]]
    assert make.asked == ["c", "ab"]
    again = Tokenised(store, make, b"encoding")  # after a restart, too: they lie in the file
    assert [row.ids for row in again.get([first, second])] == [[97, 98], [99]]
    assert make.asked == ["c", "ab"]


def test_another_tokenizer_makes_its_own(store: ExampleStore) -> None:
    make = Counting()
    for encoding in (b"one", b"two", b"one"):
        Tokenised(store, make, encoding).get(store.ids())
    assert make.asked == ["ab", "c"] * 2


def test_replaced_example_is_tokenised_anew_and_a_deleted_one_is_left_out(store: ExampleStore) -> None:
    rows = Tokenised(store, Counting(), b"encoding")
    ids = rows.ids()
    rows.get(ids)
    store.put("d", "x", key="first")
    store.delete("second")
    assert [row.ids for row in rows.get(ids)] == [[100]]


def test_tokens_of_what_was_replaced_while_they_were_made_are_not_kept(store: ExampleStore) -> None:
    def replacing(example: AnyExample) -> TokenRow:
        store.put("new", "x", key="first")
        return TokenRow([1], [0], [1])

    [first, _] = store.ids()
    assert [row.ids for row in Tokenised(store, replacing, b"encoding").get([first])] == [[1]]
    assert [row.ids for row in Tokenised(store, Counting(), b"encoding").get([first])] == [[110, 101, 119]]


def test_damaged_tokens_are_made_and_kept_anew(store: ExampleStore, tmp_path: Path) -> None:
    make = Counting()
    rows = Tokenised(store, make, b"encoding")
    first, second = rows.ids()
    rows.get([first, second])
    with closing(sqlite3.connect(tmp_path / "examples.sqlite")) as database, database:
        database.execute("UPDATE tokens SET sealed = zeroblob(size_bytes) WHERE example_id = ?", (first,))
    for _ in range(2):
        assert [row.ids for row in rows.get([first, second])] == [[97, 98], [99]]
        assert make.asked == ["ab", "c", "ab"]


def test_damaged_key_of_an_example_is_told_though_its_tokens_are_there(
    store: ExampleStore, tmp_path: Path
) -> None:
    rows = Tokenised(store, Counting(), b"encoding")
    rows.get(rows.ids())
    with closing(sqlite3.connect(tmp_path / "examples.sqlite")) as database, database:
        database.execute("UPDATE row_keys SET wrapped = zeroblob(length(wrapped))")
    with pytest.raises(StoreDamaged):
        rows.get(rows.ids())


def test_tokens_lie_in_the_file_sealed(store: ExampleStore, tmp_path: Path) -> None:
    packed = np.arange(500, 540, dtype="<i4")
    Tokenised(store, lambda example: TokenRow(packed.tolist(), [], []), b"encoding").get(store.ids())
    assert len(wrapped_keys(tmp_path / "examples.sqlite")) == 2
    assert packed.tobytes()[:32] not in bytes_in(tmp_path)


def test_tokens_take_no_more_than_their_bound_and_those_of_another_tokenizer_go_first(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite", max_token_bytes=400) as store:
        store.put_many(Example("x" * 10, "x") for _ in range(10))
        make = Counting()
        for encoding, made in ((b"one", 10), (b"one", 8), (b"two", 10), (b"two", 8), (b"one", 10)):
            make.asked.clear()
            Tokenised(store, make, encoding).get(store.ids())
            # A row is 12 + 4 * 13 bytes, filled to 128, and 28 for its nonce and tag: two of them fit in 400.
            assert len(make.asked) == made


def test_store_that_keeps_no_tokens_has_them_made_each_time(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite", max_token_bytes=0) as store:
        store.put("a", "x")
        make = Counting()
        for _ in range(2):
            assert len(Tokenised(store, make, b"encoding").get(store.ids())) == 1
        assert make.asked == ["a", "a"]


def test_full_disk_keeps_no_tokens_and_stops_no_training(store: ExampleStore, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        rows = Tokenised(store, lambda example: TokenRow([1], [], []), b"encoding").get(store.ids())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [row.ids for row in rows] == [[1], [1]]
    assert store.tokens.get(store.ids(), b"encoding") == {}


def test_whatever_decides_tokens_decides_the_encoding(tmp_path: Path) -> None:
    manifest = bundle_on_disk(tmp_path).manifest
    others = [
        encoding_of(manifest, max_tokens=16),
        encoding_of(manifest, max_tokens=8),
        encoding_of(bundle_on_disk(tmp_path / "other", "text-generation").manifest, max_tokens=16),
        encoding_of(manifest.model_copy(update={"labels": ("warm", "cold")}), max_tokens=16),
    ]
    assert len(set(others)) == 4
    assert encoding_of(stamped(manifest, rows=2, tokens=16), max_tokens=16) == others[0]


@pytest.mark.parametrize("task", ["text-classification", "text-generation", "text2text-generation"])
def test_batches_are_the_same_from_tokens_that_were_kept(tmp_path: Path, task: str) -> None:
    bundle = bundle_on_disk(tmp_path / "bundle", task)  # type: ignore[arg-type]
    batching = batching_of(bundle, TrainingSettings(batch_size=2, max_tokens=4))
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put_many([Example("snow and ice", "cold"), Example("sun", "warm"), Example("sand", "warm")])

        def drawn() -> list[dict[str, list[object]]]:
            source = batching.read(store)
            batches = draw_batches(source, batching, rng=np.random.default_rng(0))
            return [{name: array.tolist() for name, array in next(batches).items()} for _ in range(4)]

        assert drawn() == drawn()
        kept = store.tokens.get(store.ids(), encoding_of(bundle.manifest, max_tokens=4))
        assert len(kept) == 3


def test_app_may_put_and_delete_while_a_device_trains(tmp_path: Path) -> None:
    """Every text is a number, and its tokens are that number: whatever is drawn was whole at some moment."""

    def make(example: AnyExample) -> TokenRow:
        assert isinstance(example, Example)
        return TokenRow([int(example.text)] * 3, [], [int(example.text)])

    path = tmp_path / "examples.sqlite"
    with (
        ExampleStore(path, max_examples=30, encryption_key=bytes(32)) as store,
        ExampleStore(path, max_examples=30, encryption_key=bytes(32)) as app,
        ThreadPoolExecutor(3) as pool,
    ):
        store.put_many(Example(f"{number}", "x", f"{number % 20}") for number in range(20))

        def change(begin: int) -> None:
            for number in range(begin, begin + 60):
                app.put(f"{number}", "x", key=f"{number % 20}")
                if number % 3 == 0:
                    app.delete(f"{(number + 7) % 20}")

        changing = [pool.submit(change, begin) for begin in (1000, 2000)]
        rows = Tokenised(store, make, b"encoding")
        for _ in range(40):
            drawn = rows.get(rows.ids())
            assert all(row.ids == row.labels * 3 for row in drawn)
        for change_made in changing:
            change_made.result()
        # Of what is there now, each has its own tokens and no other's.
        now = [example.text for example in store if isinstance(example, Example)]
        assert [f"{row.ids[0]}" for row in rows.get(rows.ids())] == now
