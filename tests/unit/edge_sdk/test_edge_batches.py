from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from fake_bundle import LABELS, tiny_tokenizer

from edge_sdk.batching.batches import Batching, check_examples, draw_batches
from edge_sdk.batching.collation import Collate, TextCollation
from edge_sdk.batching.tokens import TextEncoder
from edge_sdk.examples import Example, ExampleStore
from hetlora.errors import DataError, NoExamples
from hetlora.manifest import TensorInput


@pytest.fixture
def collate(tmp_path: Path) -> Collate:
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    inputs = [TensorInput(name="input_ids", dtype="int64", shape=("batch", "tokens"))]
    encoder = TextEncoder(tmp_path / "tokenizer.json", inputs, max_tokens=3)
    return TextCollation("text-classification", LABELS, encoder)


@pytest.fixture
def store(tmp_path: Path) -> ExampleStore:
    return ExampleStore(tmp_path / "examples.sqlite")


def test_each_example_comes_once_before_any_comes_twice(store: ExampleStore, collate: Collate) -> None:
    words = ["snow", "ice", "sun", "sand", "and"]
    store.put_many(Example(word, "cold") for word in words)
    batches = draw_batches(store, Batching(collate, 2), rng=np.random.default_rng(0))
    drawn = [int(row[0]) for batch in islice(batches, 5) for row in batch["input_ids"]]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == [2, 3, 4, 5, 6]


def test_fewer_examples_than_a_batch_are_taken_once_each(store: ExampleStore, collate: Collate) -> None:
    store.put_many([Example("snow", "cold"), Example("sun", "warm")])
    batch = next(draw_batches(store, Batching(collate, 16), rng=np.random.default_rng(0)))
    pairs = zip(batch["input_ids"][:, 0].tolist(), batch["labels"].tolist(), strict=True)
    assert sorted(pairs) == [(2, 0), (4, 1)]  # snow is "cold" = 0, sun is "warm" = 1
    assert batch["labels"].dtype == np.int64


def test_same_seed_gives_the_same_batches(store: ExampleStore, collate: Collate) -> None:
    store.put_many(Example(word, "cold") for word in ["snow", "ice", "sun", "sand", "and"])

    def drawn(seed: int) -> list[list[list[int]]]:
        batches = draw_batches(store, Batching(collate, 2), rng=np.random.default_rng(seed))
        return [batch["input_ids"].tolist() for batch in islice(batches, 4)]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_example_deleted_meanwhile_leaves_its_batch(store: ExampleStore, collate: Collate) -> None:
    store.put_many([Example("snow", "cold", "a"), Example("sun", "warm", "b")])
    batches = draw_batches(store, Batching(collate, 2), rng=np.random.default_rng(0))
    next(batches)
    store.delete("a")
    assert next(batches)["input_ids"].tolist() == [[4]]
    store.delete("b")
    with pytest.raises(NoExamples, match="were deleted"):
        next(batches)


@pytest.mark.parametrize("skip", [0, 1, 3, 7])
def test_batches_that_are_skipped_leave_those_that_came_after_them(
    store: ExampleStore, collate: Collate, skip: int
) -> None:
    store.put_many(Example(word, "cold") for word in ["snow", "ice", "sun", "sand", "and"])

    def drawn(skip: int) -> list[list[list[int]]]:
        batches = draw_batches(store, Batching(collate, 2), rng=np.random.default_rng(3), skip=skip)
        return [batch["input_ids"].tolist() for batch in islice(batches, 10 - skip)]

    assert drawn(skip) == drawn(0)[skip:]


def test_example_deleted_before_training_goes_on_comes_no_more(store: ExampleStore, collate: Collate) -> None:
    store.put_many([Example("snow", "cold", "a"), Example("sun", "warm", "b"), Example("ice", "cold", "c")])
    store.delete("a")
    batches = draw_batches(store, Batching(collate, 1), rng=np.random.default_rng(0), skip=4)
    assert {int(batch["input_ids"][0, 0]) for batch in islice(batches, 4)} == {3, 4}


def test_batch_of_deleted_examples_alone_is_passed_by(store: ExampleStore, collate: Collate) -> None:
    store.put_many([Example("snow", "cold", "a"), Example("sun", "warm", "b")])
    batches = draw_batches(store, Batching(collate, 1), rng=np.random.default_rng(0))
    next(batches)
    store.delete("a")
    assert [next(batches)["input_ids"].tolist() for _ in range(3)] == [[[4]]] * 3


def test_label_changed_meanwhile_to_an_unknown_one_is_refused(store: ExampleStore, collate: Collate) -> None:
    store.put("snow", "cold", key="a")
    batches = draw_batches(store, Batching(collate, 2), rng=np.random.default_rng(0))
    store.put("snow", "lukewarm", key="a")
    with pytest.raises(DataError, match="does not know"):
        next(batches)


def test_empty_store_cannot_train(store: ExampleStore) -> None:
    with pytest.raises(NoExamples, match="holds no examples"):
        check_examples(store, "text-classification", LABELS)


def test_label_unknown_to_the_bundle_is_named(store: ExampleStore) -> None:
    store.put_many([Example("snow", "cold"), Example("tea", "lukewarm")])
    with pytest.raises(DataError, match=r"got \['lukewarm'\]; expected labels of \['cold', 'warm'\]"):
        check_examples(store, "text-classification", LABELS)


def test_known_labels_pass(store: ExampleStore) -> None:
    store.put("snow", "cold")
    check_examples(store, "text-classification", LABELS)


def test_any_continuation_passes_where_text_is_generated(store: ExampleStore) -> None:
    store.put("snow", "is cold")
    check_examples(store, "text-generation", [])


def test_model_of_images_does_not_learn_from_text(store: ExampleStore) -> None:
    store.put("snow", "cold")
    with pytest.raises(DataError, match=r"got \['labelled_text'\]; expected image-classification from image"):
        check_examples(store, "image-classification", LABELS)
