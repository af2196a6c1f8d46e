"""What is held out of a store: which examples, and that none is on both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.client import EdgeClient
from edge_sdk.examples import (
    ChatExample,
    Example,
    ExampleStore,
    SplitExampleStore,
    TextExample,
    open_stores,
)
from hetlora.errors import DataError, SettingsError

MakeClient = Callable[..., EdgeClient]
MANY = [Example(f"text {number}", "x", f"key {number}") for number in range(400)]


@contextmanager
def _stores(folder: Path, share: float) -> Iterator[tuple[SplitExampleStore, ExampleStore]]:
    with (
        ExampleStore(folder / "held_out.sqlite") as held_out,
        SplitExampleStore(folder / "examples.sqlite", held_out, share) as store,
    ):
        yield store, held_out


def _keys(store: ExampleStore) -> set[str | None]:
    return {example.key for example in store}


def test_about_the_share_is_held_out_and_nothing_twice(tmp_path: Path) -> None:
    with _stores(tmp_path, 0.25) as (store, held_out):
        store.put_many(MANY)
        assert store.count() + held_out.count() == 400
        # 100 on average, with a deviation of 9: five of them leave one device in two millions outside.
        assert 55 < held_out.count() < 145
        assert not _keys(store) & _keys(held_out)


def test_share_of_nothing_holds_nothing_out(tmp_path: Path) -> None:
    with _stores(tmp_path, 0.0) as (store, held_out):
        store.put_many(MANY)
        assert (store.count(), held_out.count()) == (400, 0)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_share_that_is_none_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(SettingsError, match="held_out_share"), _stores(tmp_path, share):
        pass


def test_example_falls_on_its_side_again_whenever_it_is_put(tmp_path: Path) -> None:
    with _stores(tmp_path, 0.5) as (store, held_out):
        store.put_many(MANY)
        sides = _keys(store), _keys(held_out)
    with _stores(tmp_path, 0.5) as (store, held_out):  # after a restart, in another order, with another text
        store.put_many(Example("replaced", "y", example.key) for example in reversed(MANY))
        assert (_keys(store), _keys(held_out)) == sides
        store.clear()
        assert (store.count(), held_out.count()) == (0, 0)
        store.put_many(MANY)
        assert (_keys(store), _keys(held_out)) == sides


def test_another_share_moves_nothing_that_is_stored(tmp_path: Path) -> None:
    with _stores(tmp_path, 0.5) as (store, held_out):
        store.put_many(MANY)
        sides = _keys(store), _keys(held_out)
    for share in (0.9, 0.1):
        with _stores(tmp_path, share) as (store, held_out):
            store.put_many(MANY)
            assert (_keys(store), _keys(held_out)) == sides


def test_examples_without_a_key_go_by_what_they_say(tmp_path: Path) -> None:
    said = [
        *(Example(f"text {number}", "x") for number in range(50)),
        *(TextExample(f"text {number}") for number in range(50)),
        *(ChatExample.of([("user", "?"), ("assistant", f"{number}")]) for number in range(50)),
    ]
    with _stores(tmp_path, 0.5) as (store, held_out):
        for _ in range(3):
            store.put_many(said)
        assert store.count() + held_out.count() == 450
        assert 0 < held_out.count() < 450
        assert not set(store) & set(held_out)
        # Another label of a text leaks as much as the same one.
        store.put_many(Example(f"text {number}", "another") for number in range(50))
        texts = [{e.text for e in side if isinstance(e, Example)} for side in (store, held_out)]
        assert not texts[0] & texts[1]


def test_devices_hold_different_examples_out(tmp_path: Path) -> None:
    held = []
    for name in ("one", "two"):
        with _stores(tmp_path / name, 0.5) as (store, held_out):
            store.put_many(MANY)
            held.append(_keys(held_out))
    assert held[0] != held[1]


def test_example_that_was_held_out_by_hand_stays_there_and_is_deleted_from_there(tmp_path: Path) -> None:
    with _stores(tmp_path, 0.0) as (store, held_out):
        store.put("trained on", "x", key="a")
        held_out.put("held out", "x", key="a")
        store.put("replaced", "x", key="a")
        assert (list(store), list(held_out)) == ([], [Example("replaced", "x", "a")])
        assert store.delete("a")
        assert not store.delete("a")
        assert held_out.count() == 0


def test_refused_example_leaves_none_of_its_batch_on_either_side(tmp_path: Path) -> None:
    def some() -> Iterator[Example]:
        yield from MANY
        yield Example("text", " ")

    with _stores(tmp_path, 0.5) as (store, held_out):
        with pytest.raises(DataError):
            store.put_many(some())
        assert (store.count(), held_out.count()) == (0, 0)


@settings(max_examples=20, deadline=None)  # the machine may be busy
@given(
    puts=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["put", "hold out", "delete"])), max_size=25
    )
)
def test_no_key_is_ever_on_both_sides_once_it_is_put_again(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[str, str]]
) -> None:
    with _stores(tmp_path_factory.mktemp("law"), 0.5) as (store, held_out):
        for key, what in puts:
            match what:
                case "put":
                    store.put("text", "x", key=key)
                    assert (key in _keys(store)) != (key in _keys(held_out))
                case "hold out":
                    held_out.put("text", "x", key=key)
                case "delete":
                    store.delete(key)
                    assert key not in _keys(store) | _keys(held_out)


def test_client_holds_a_share_out_of_what_it_is_given(make_client: MakeClient) -> None:
    client = make_client(held_out_share=0.5)
    client.examples.clear()
    client.examples.put_many(MANY)
    assert client.examples.count() + client.held_out.count() == 400
    assert client.held_out.count() > 100


def test_side_is_made_of_the_other_while_both_are_put_into(tmp_path: Path) -> None:
    with _stores(tmp_path, 0.5) as (store, held_out), ThreadPoolExecutor(1) as thread:
        store.put_many(MANY)

        def made() -> Iterator[Example]:
            for example in list(store)[:2]:
                thread.submit(store.put_many, MANY).result(timeout=60)  # it wants both sides
                yield Example("made of it", "x", f"of {example.key}")

        before = held_out.count()
        held_out.put_many(made())
        assert held_out.count() == before + 2


def test_share_that_is_left_out_holds_nothing_more_out_and_still_deletes_on_both_sides(
    tmp_path: Path,
) -> None:
    files = tmp_path / "examples.sqlite", tmp_path / "held_out.sqlite"
    with _stores(tmp_path, 0.5) as (store, held_out):
        store.put_many(MANY)
        sides = _keys(store), _keys(held_out)
    store, held_out = open_stores(*files, None)
    with store, held_out:
        store.put_many(MANY)  # none that was held out is trained on now
        assert (_keys(store), _keys(held_out)) == sides
        store.put_many(Example(f"new text {number}", "x", f"new {number}") for number in range(40))
        assert _keys(held_out) == sides[1]
        assert store.delete(next(key for key in sides[1] if key is not None))
        assert held_out.count() == len(sides[1]) - 1
        store.clear()
        assert (store.count(), held_out.count()) == (0, 0)


def test_client_without_a_share_keeps_its_stores_apart(make_client: MakeClient) -> None:
    client = make_client()
    client.examples.put("snow", "cold", key="same")
    client.held_out.put("ice", "cold", key="same")
    client.examples.put("sun", "warm", key="same")
    assert client.examples.delete("same")
    assert list(client.held_out) == [Example("ice", "cold", "same")]
