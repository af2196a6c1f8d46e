from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from edge_fakes import LABELS, tiny_tokenizer
from tokenizers.processors import TemplateProcessing

from edge_sdk.batches import TextEncoder, check_labels, draw_batches
from edge_sdk.examples import Example, ExampleStore
from hetlora.errors import BundleInvalid, DataError, NoExamples
from hetlora.manifest import TensorInput


def _input(name: str, dtype: str = "int64") -> TensorInput:
    return TensorInput.model_validate({"name": name, "dtype": dtype, "shape": ("batch", "tokens")})


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    tiny_tokenizer().save(str(path))
    return path


@pytest.fixture
def encoder(tokenizer_file: Path) -> TextEncoder:
    return TextEncoder(tokenizer_file, [_input("input_ids"), _input("attention_mask")], max_tokens=3)


@pytest.fixture
def store(tmp_path: Path) -> ExampleStore:
    return ExampleStore(tmp_path / "examples.sqlite")


def test_texts_are_padded_to_the_longest_of_the_batch(encoder: TextEncoder) -> None:
    # Vocabulary: [PAD] 0, [UNK] 1, snow 2, ice 3, sun 4, sand 5, and 6.
    arrays = encoder.encode(["snow", "sun sand"])
    assert arrays["input_ids"].tolist() == [[2, 0], [4, 5]]
    assert arrays["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int64)}


def test_long_text_is_cut_at_max_tokens(encoder: TextEncoder) -> None:
    assert encoder.encode(["sun and sand and snow"])["input_ids"].tolist() == [[4, 6, 5]]


def test_arrays_come_under_the_names_of_the_manifest(tokenizer_file: Path) -> None:
    names = ["token_type_ids", "input_ids"]
    encoder = TextEncoder(tokenizer_file, [_input(name) for name in names], max_tokens=3)
    arrays = encoder.encode(["ice"])
    assert list(arrays) == names
    assert arrays["token_type_ids"].tolist() == [[0]]


def test_padding_of_the_tokenizer_file_is_kept(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.enable_padding(pad_id=6, pad_token="and", direction="left", length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder(tmp_path / "tokenizer.json", [_input("input_ids")], max_tokens=3)
    assert encoder.encode(["snow", "sun sand"])["input_ids"].tolist() == [[6, 2], [4, 5]]


def test_special_tokens_count_towards_max_tokens(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[UNK] $A [UNK]", special_tokens=[("[UNK]", 1)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder(tmp_path / "tokenizer.json", [_input("input_ids")], max_tokens=3)
    assert encoder.encode(["snow ice"])["input_ids"].tolist() == [[1, 2, 1]]


@pytest.mark.parametrize("field", [_input("pixel_values"), _input("input_ids", "float32")])
def test_input_that_text_cannot_fill_is_refused(tokenizer_file: Path, field: TensorInput) -> None:
    with pytest.raises(BundleInvalid, match=f"cannot fill; got \\['{field.name}'\\]"):
        TextEncoder(tokenizer_file, [field], max_tokens=3)


def test_damaged_tokenizer_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleInvalid, match=r"tokenizer\.json is no tokenizer"):
        TextEncoder(tmp_path / "tokenizer.json", [_input("input_ids")], max_tokens=3)


def test_each_example_comes_once_before_any_comes_twice(store: ExampleStore, encoder: TextEncoder) -> None:
    words = ["snow", "ice", "sun", "sand", "and"]
    store.put_many(Example(word, "cold") for word in words)
    batches = draw_batches(store, encoder, LABELS, batch_size=2, rng=np.random.default_rng(0))
    drawn = [int(row[0]) for batch in islice(batches, 5) for row in batch["input_ids"]]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == [2, 3, 4, 5, 6]


def test_fewer_examples_than_a_batch_are_taken_once_each(store: ExampleStore, encoder: TextEncoder) -> None:
    store.put_many([Example("snow", "cold"), Example("sun", "warm")])
    batch = next(draw_batches(store, encoder, LABELS, batch_size=16, rng=np.random.default_rng(0)))
    pairs = zip(batch["input_ids"][:, 0].tolist(), batch["labels"].tolist(), strict=True)
    assert sorted(pairs) == [(2, 0), (4, 1)]  # snow is "cold" = 0, sun is "warm" = 1
    assert batch["labels"].dtype == np.int64


def test_same_seed_gives_the_same_batches(store: ExampleStore, encoder: TextEncoder) -> None:
    store.put_many(Example(word, "cold") for word in ["snow", "ice", "sun", "sand", "and"])

    def drawn(seed: int) -> list[list[list[int]]]:
        batches = draw_batches(store, encoder, LABELS, batch_size=2, rng=np.random.default_rng(seed))
        return [batch["input_ids"].tolist() for batch in islice(batches, 4)]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_example_deleted_meanwhile_leaves_its_batch(store: ExampleStore, encoder: TextEncoder) -> None:
    store.put_many([Example("snow", "cold", "a"), Example("sun", "warm", "b")])
    batches = draw_batches(store, encoder, LABELS, batch_size=2, rng=np.random.default_rng(0))
    next(batches)
    store.delete("a")
    assert next(batches)["input_ids"].tolist() == [[4]]
    store.delete("b")
    with pytest.raises(NoExamples, match="were deleted"):
        next(batches)


def test_label_changed_meanwhile_to_an_unknown_one_is_refused(
    store: ExampleStore, encoder: TextEncoder
) -> None:
    store.put("snow", "cold", key="a")
    batches = draw_batches(store, encoder, LABELS, batch_size=2, rng=np.random.default_rng(0))
    store.put("snow", "lukewarm", key="a")
    with pytest.raises(DataError, match="does not know"):
        next(batches)


def test_empty_store_cannot_train(store: ExampleStore) -> None:
    with pytest.raises(NoExamples, match="holds no examples"):
        check_labels(store, LABELS)


def test_label_unknown_to_the_bundle_is_named(store: ExampleStore) -> None:
    store.put_many([Example("snow", "cold"), Example("tea", "lukewarm")])
    with pytest.raises(DataError, match=r"got \['lukewarm'\]; expected labels of \['cold', 'warm'\]"):
        check_labels(store, LABELS)


def test_known_labels_pass(store: ExampleStore) -> None:
    store.put("snow", "cold")
    check_labels(store, LABELS)
