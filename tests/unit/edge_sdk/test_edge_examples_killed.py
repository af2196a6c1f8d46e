"""A process that is killed while it changes a store leaves one that is whole, under one key."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_sdk.examples import Example, ExampleStore

KEYS = bytes(range(32)), bytes(range(32, 64))

REKEY = """
import itertools, sys
from pathlib import Path
from edge_sdk.examples import ExampleStore
keys = bytes(range(32)), bytes(range(32, 64))
store = ExampleStore(Path(sys.argv[1]), encryption_key=keys[0], previous_encryption_key=keys[1])
print("ready", flush=True)
for key in itertools.cycle(keys):
    store.rekey(key)
"""
PUT = """
import itertools, sys
from pathlib import Path
from edge_sdk.examples import Example, ExampleStore
store = ExampleStore(Path(sys.argv[1]), max_examples=50, encryption_key=bytes(range(32)))
for number in itertools.count():
    store.put_many([Example(f"{number} {part}" * 100, "x", f"{number % 7} {part}") for part in range(3)])
    if number == 0:
        print("ready", flush=True)
"""


def _killed(program: str, path: Path, after_seconds: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(after_seconds)
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("seed", range(3))
def test_store_is_under_one_of_both_keys_and_all_of_it(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "examples.sqlite"
    examples = [Example(f"text {n}", "x", f"key {n}") for n in range(300)]
    with ExampleStore(path, encryption_key=KEYS[0]) as store:
        store.put_many(examples)
    _killed(REKEY, path, random.Random(seed).uniform(0, 0.2))
    with ExampleStore(path, encryption_key=KEYS[0], previous_encryption_key=KEYS[1]) as store:
        assert list(store) == examples
        assert store.delete("key 17")


@pytest.mark.parametrize("seed", range(3))
def test_examples_of_one_put_are_all_there_or_none(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "examples.sqlite"
    _killed(PUT, path, random.Random(seed).uniform(0.05, 0.3))
    with ExampleStore(path, max_examples=50, encryption_key=KEYS[0]) as store:
        puts: dict[str, int] = {}
        for example in store:
            assert isinstance(example, Example)
            number = example.text.split()[0]
            puts[number] = puts.get(number, 0) + 1
        assert set(puts.values()) == {3}
        assert store.delete("0 0")
