"""What is removed is in no file of the store afterwards: neither the text nor the key that opens its row."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from device_clock import Clock
from store_files import bytes_in, wrapped_keys

from edge_sdk.examples import Example, ExampleStore, ImageExample, SplitExampleStore
from hetlora.errors import UnavailableError

SECRET = "the password is 1234"
KEY = bytes(range(32))


@pytest.fixture
def clock() -> Clock:
    return Clock(1000)


@pytest.fixture(params=[None, KEY], ids=["root in the file", "encrypted"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[ExampleStore]:
    with ExampleStore(
        tmp_path / "examples.sqlite", max_examples=3, encryption_key=request.param, clock=clock
    ) as store:
        yield store


def _delete(store: ExampleStore, clock: Clock) -> None:
    assert store.delete("secret")


def _replace(store: ExampleStore, clock: Clock) -> None:
    store.put("nothing", "x", key="secret")


def _clear(store: ExampleStore, clock: Clock) -> None:
    store.clear()


def _let_expire(store: ExampleStore, clock: Clock) -> None:
    clock.now += 60
    store.put("another", "x")


def _push_out(store: ExampleStore, clock: Clock) -> None:
    store.put_many(Example(f"text {number}", "x") for number in range(3))


@pytest.mark.parametrize("remove", [_delete, _replace, _clear, _let_expire, _push_out])
def test_removed_example_is_in_no_file(
    store: ExampleStore, clock: Clock, tmp_path: Path, remove: Callable[[ExampleStore, Clock], None]
) -> None:
    store.put(SECRET, "secret label", key="secret", keep_seconds=60)
    [stored] = store.tokens.examples(store.ids())
    store.tokens.put({stored.id: (stored, b"tokens of it")}, b"encoding")
    assert store.tokens.get([stored.id], b"encoding") == {stored.id: b"tokens of it"}
    assert stored.wrapped in bytes_in(tmp_path)  # before: what is looked for can be found

    remove(store, clock)

    left = bytes_in(tmp_path)
    assert stored.wrapped not in left
    assert not any(text.encode() in left for text in (SECRET, "secret label", "tokens of it"))
    assert store.tokens.get([stored.id], b"encoding") == {}
    assert SECRET not in {example.text for example in store}


def test_what_expired_while_the_store_was_closed_is_in_no_file_once_it_is_open(
    tmp_path: Path, clock: Clock
) -> None:
    with ExampleStore(tmp_path / "examples.sqlite", clock=clock) as store:
        store.put(SECRET, "x", keep_seconds=60)
        [stored] = store.tokens.examples(store.ids())
    clock.now += 60
    assert stored.wrapped in bytes_in(tmp_path)
    with ExampleStore(tmp_path / "examples.sqlite", clock=clock):
        assert stored.wrapped not in bytes_in(tmp_path)


def test_example_that_fell_to_the_held_out_side_is_deleted_by_its_key_too(tmp_path: Path) -> None:
    with (
        ExampleStore(tmp_path / "held_out.sqlite") as held_out,
        SplitExampleStore(tmp_path / "examples.sqlite", held_out, 0.5) as store,
    ):
        store.put_many(Example(f"{SECRET} {number}", "x", f"{number}") for number in range(20))
        assert 0 < held_out.count() < 20
        names = ("examples.sqlite", "held_out.sqlite")
        wrapped = [key for name in names for key in wrapped_keys(tmp_path / name).values()]
        assert len(wrapped) == 20
        assert all(key in bytes_in(tmp_path) for key in wrapped)

        assert all(store.delete(f"{number}") for number in range(20))

        assert not any(key in bytes_in(tmp_path) for key in wrapped)
        assert store.count() == held_out.count() == 0


def test_reader_of_one_side_keeps_no_example_on_the_other(tmp_path: Path) -> None:
    with (
        ExampleStore(tmp_path / "held_out.sqlite", busy_seconds=0.05) as held_out,
        SplitExampleStore(tmp_path / "examples.sqlite", held_out, 0.0) as store,
    ):
        held_out.put("held out", "x", key="a")
        reader = sqlite3.connect(tmp_path / "held_out.sqlite", isolation_level=None)
        for remove in (lambda: store.delete("a"), store.clear):
            store.put_many([Example("b", "x", "b")])
            ExampleStore.put(store, "trained on", "x", key="c")
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM examples").fetchone()
            held_out.put("held out", "x", key="a")
            with pytest.raises(UnavailableError):
                remove()
            reader.execute("ROLLBACK")
        assert (store.count(), held_out.count()) == (0, 0)
        reader.close()


@pytest.mark.parametrize("seed", range(3))
def test_no_key_of_a_removed_row_is_left_whatever_came_before(tmp_path: Path, seed: int) -> None:
    """Rows of all sizes, put, replaced, removed and pushed out: secure_delete alone leaves some of them."""
    rng = random.Random(seed)
    path = tmp_path / "examples.sqlite"
    gone: set[bytes] = set()
    with ExampleStore(path, max_examples=40, max_token_bytes=0) as store:
        before: dict[int, bytes] = {}
        for _ in range(60):
            store.put_many(
                Example("x" * rng.randint(1, 3000), "y", f"{rng.randrange(60)}")
                for _ in range(rng.randint(1, 4))
            )
            if rng.random() < 0.5:
                store.delete(f"{rng.randrange(60)}")
            now = wrapped_keys(path)
            gone |= set(before.values()) - set(now.values())
            before = now
        left = bytes_in(tmp_path)
    assert len(gone) > 60
    assert not [key for key in gone if key in left]


def test_reader_that_keeps_old_bytes_is_told_of_and_the_next_change_makes_up_for_it(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    with ExampleStore(path, busy_seconds=0.05) as store:
        store.put(SECRET, "x", key="secret")
        [wrapped] = wrapped_keys(path).values()
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM examples").fetchone()
        with pytest.raises(UnavailableError, match="not yet overwritten"):
            store.delete("secret")
        assert store.count() == 0
        assert wrapped in bytes_in(tmp_path)
        reader.close()
        store.put("another", "x")
        assert wrapped not in bytes_in(tmp_path)


def test_deleted_image_is_in_no_file(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        pixels = random.Random(0).randbytes(64 * 64 * 3)
        store.put(ImageExample(pixels, "cat", "mine", shape=(64, 64, 3)))
        [wrapped] = wrapped_keys(tmp_path / "examples.sqlite").values()
        store.delete("mine")
        left = bytes_in(tmp_path)
    assert wrapped not in left
    assert pixels[:64] not in left
