"""How long examples are kept, and how many: expiry and bounds, and one law over all that an app may do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from device_clock import Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_sdk.examples import Example, ExampleStore, TextExample
from hetlora.errors import DataError, SettingsError, StoreDamaged

KEY = bytes(range(32))


def _texts(store: ExampleStore) -> list[str]:
    return [example.text for example in store if isinstance(example, Example)]


def test_expired_example_is_neither_drawn_nor_counted(tmp_path: Path) -> None:
    clock = Clock(1000)
    with ExampleStore(tmp_path / "examples.sqlite", clock=clock) as store:
        store.put("soon", "x", keep_seconds=10)
        store.put(TextExample("later", expires_at=1020))
        store.put("never", "x")
        assert [example.expires_at for example in store] == [1010, 1020, None]
        ids = store.ids()
        clock.now = 1010  # the moment itself is too late
        assert _texts(store) == ["never"]
        assert (store.count(), store.ids(), len(store.get(ids))) == (2, ids[1:], 2)
        assert (store.kinds(), store.labels()) == ({"labelled_text": 1, "text": 1}, {"x": 1})
        assert store.tokens.get(ids, b"encoding") == {}
        clock.now = 1020
        assert store.count() == 1


def test_store_tells_how_many_expired(tmp_path: Path) -> None:
    clock = Clock(1000)
    with ExampleStore(tmp_path / "examples.sqlite", keep_seconds=10, clock=clock) as store:
        store.put_many([Example("a", "x"), Example("b", "x"), Example("c", "x", expires_at=5000)])
        clock.now += 10
        assert [store.remove_expired(), store.remove_expired(), store.count()] == [2, 0, 1]


def test_what_an_example_says_goes_before_the_stores_default_and_a_put_before_both(tmp_path: Path) -> None:
    clock = Clock(1000)
    with ExampleStore(tmp_path / "examples.sqlite", keep_seconds=10, clock=clock) as store:
        store.put("as the store has it", "x")
        store.put(Example("as it says", "x", expires_at=1030))
        store.put(Example("as it is put", "x", expires_at=1030), keep_seconds=20)
        assert [example.expires_at for example in store] == [1010, 1030, 1020]


def test_example_that_has_expired_already_replaces_and_is_gone(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite", clock=Clock(1000)) as store:
        store.put("old", "x", key="k")
        store.put(Example("new", "x", "k", expires_at=999))
        store.put(Example("without a key", "x", expires_at=999))
        assert store.count() == 0


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_time_to_keep_that_is_none_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(SettingsError, match="keep_seconds"):
        ExampleStore(tmp_path / "examples.sqlite", keep_seconds=seconds)
    with (
        ExampleStore(tmp_path / "examples.sqlite") as store,
        pytest.raises(SettingsError, match="keep_seconds"),
    ):
        store.put("snow", "cold", keep_seconds=seconds)


def test_oldest_go_until_the_bytes_fit(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "sizes.sqlite") as store:
        store.put("x" * 100, "x")
        one = store.size_bytes()
    with ExampleStore(tmp_path / "examples.sqlite", max_bytes=3 * one) as store:
        store.put_many(Example(f"{number}" * 100, "x") for number in range(5))
        assert [text[0] for text in _texts(store)] == ["2", "3", "4"]
        assert store.size_bytes() == 3 * one
        store.put("y" * 250, "x")  # takes the place of two at least
        assert _texts(store)[-1] == "y" * 250
        assert store.size_bytes() <= 3 * one


@settings(max_examples=25, deadline=None)  # the machine may be busy
@given(sizes=st.lists(st.integers(1, 900), min_size=1, max_size=25), bound=st.integers(1300, 4000))
def test_newest_examples_that_fit_are_kept(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], bound: int
) -> None:
    def stored(size: int) -> int:
        # The text and its summary, each filled up to 64 bytes and more by one at least, nonce and tag.
        return (size // 64 + 1) * 64 + 28 + 64 + 28

    with ExampleStore(tmp_path_factory.mktemp("law") / "s", max_bytes=bound) as store:
        for put in range(1, len(sizes) + 1):
            store.put("x" * sizes[put - 1], "y")
            kept: list[int] = []
            for size in reversed(sizes[:put]):
                if sum(map(stored, [*kept, size])) > bound:
                    break
                kept.append(size)
            assert [len(text) for text in _texts(store)] == kept[::-1]
            assert store.size_bytes() == sum(map(stored, kept)) <= bound


def test_example_that_grows_pushes_others_out_and_never_itself(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "sizes.sqlite") as store:
        store.put("x" * 100, "x")
        one = store.size_bytes()
    with ExampleStore(tmp_path / "examples.sqlite", max_bytes=3 * one) as store:
        store.put_many(Example(f"{number}" * 100, "x", f"{number}") for number in range(3))
        store.put("0" * 101 * 2, "x", key="0")  # the oldest of all, a chat that goes on for one
        assert [text[0] for text in _texts(store)] == ["0", "2"]
        store.put("0" * 250, "x", key="0")
        assert [text[0] for text in _texts(store)][:1] == ["0"]


def test_example_larger_than_the_store_is_refused_and_pushes_nothing_out(tmp_path: Path) -> None:
    with ExampleStore(tmp_path / "examples.sqlite", max_bytes=1000) as store:
        store.put("small", "x")
        with pytest.raises(DataError, match=r"larger than its store; got \d+; expected up to 1000 bytes"):
            store.put("large" * 1000, "x")
        assert _texts(store) == ["small"]


@pytest.mark.parametrize("bound", ["max_bytes", "max_examples"])
def test_bound_that_leaves_no_room_is_refused(tmp_path: Path, bound: str) -> None:
    with pytest.raises(SettingsError, match=f"{bound}; got 0; expected 1 or more"):
        ExampleStore(tmp_path / "examples.sqlite", **{bound: 0})


def test_store_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="got version 7"):
        ExampleStore(path)
    assert path.read_bytes()[100:] == before[100:]  # but for SQLite's own header


def test_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE examples (recipe TEXT)")
    database.close()
    with pytest.raises(SettingsError, match="recipe"):
        ExampleStore(path)


def test_torn_file_is_told_and_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "examples.sqlite"
    with ExampleStore(path) as store:
        store.put_many(Example("x" * 3000, "x") for _ in range(100))
    data = path.read_bytes()
    torn = data[: len(data) // 2]
    path.write_bytes(torn)
    with pytest.raises(StoreDamaged, match="is damaged; got database disk image is malformed"):
        ExampleStore(path)
    assert path.read_bytes() == torn


KEYS = st.sampled_from(["a", "b", "c"])
TEXTS = st.text(min_size=1, max_size=40).filter(str.strip)


class Keeping(RuleBasedStateMachine):
    """A store beside a list of what it is to hold: (text, key, expires_at), oldest first."""

    max_examples = 4

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(1000)
        self.held: list[tuple[str, str | None, float | None]] = []
        self.key: bytes | None = None
        self.folder = self.base / f"{next(self.numbers)}"
        self.store = self._open()

    def _open(self) -> ExampleStore:
        return ExampleStore(
            self.folder / "s", max_examples=self.max_examples, encryption_key=self.key, clock=self.clock
        )

    @rule(text=TEXTS, key=st.none() | KEYS, seconds=st.none() | st.integers(1, 5))
    def put(self, text: str, key: str | None, seconds: int | None) -> None:
        self.store.put(text, "x", key=key, keep_seconds=seconds)
        self._expire()
        row = (text, key, None if seconds is None else self.clock.now + seconds)
        keys = [held[1] for held in self.held]
        if key is not None and key in keys:
            self.held[keys.index(key)] = row
        else:
            self.held = [*self.held, row][-self.max_examples :]

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self._expire()
        assert self.store.delete(key) == any(held[1] == key for held in self.held)
        self.held = [held for held in self.held if held[1] != key]

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds
        self._expire()

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.held = []

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self._open()

    @precondition(lambda self: self.key is None)
    @rule()
    def encrypt(self) -> None:
        self.store.close()
        self.key = KEY
        self.store = self._open()

    @precondition(lambda self: self.key is not None)
    @rule(key=st.binary(min_size=32, max_size=32))
    def rekey(self, key: bytes) -> None:
        self.store.rekey(key)
        self.key = key

    @invariant()
    def holds_what_was_put(self) -> None:
        found = [(example.text, example.key, example.expires_at) for example in self.store]
        assert found == self.held
        assert self.store.count() == len(self.held) <= self.max_examples

    def _expire(self) -> None:
        self.held = [held for held in self.held if held[2] is None or held[2] > self.clock.now]

    def teardown(self) -> None:
        self.store.close()


def test_store_holds_what_was_put_whatever_else_was_done(tmp_path: Path) -> None:
    Keeping.base, Keeping.numbers = tmp_path, iter(range(10**6))
    machine = Keeping.TestCase
    machine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
    machine().runTest()
