"""Batches that native code never sees. Vocabulary of eight tokens; pictures of 3 x 2 x 2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_bundle import tiny_files, tiny_manifest

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.feeds import decoder_feeds, input_feeds, labelled_feeds
from hetlora.errors import DataError
from hetlora.manifest import Task

TEXT: Batch = {
    "input_ids": np.array([[2, 3, 7], [4, 7, 0]]),
    "attention_mask": np.array([[1, 1, 1], [1, 1, 0]]),
}
PICTURES: Batch = {"pixel_values": np.zeros((2, 3, 2, 2), np.float32)}


def _labelled(task: Task, labels: Any, batch: Batch = TEXT) -> Any:
    feeds = labelled_feeds(tiny_manifest(tiny_files(), task), {**batch, "labels": np.array(labels)})
    return feeds["labels"]


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("text-classification", [0, 1]),
        ("text-generation", [[-100, 3, 7], [4, 0, -100]]),
        ("text-generation", [[-100] * 3] * 2),
        ("text2text-generation", [[7], [-100]]),
        ("text2text-generation", [[1, 2, 3, 4, 5], [6, 7, -100, -100, -100]]),
    ],
)
def test_labels_that_fit_their_task_pass_as_they_are(task: Task, labels: list[Any]) -> None:
    fed = _labelled(task, np.array(labels, np.int32))
    assert fed.dtype == np.int64
    assert fed.tolist() == labels


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        ("text-classification", [0, 1, 1], r"got \(3,\); expected \(2,\)"),
        ("text-classification", [[0], [1]], r"got \(2, 1\); expected \(2,\)"),
        ("text-generation", [0, 1], r"got \(2,\); expected \(2, 3\)"),
        ("text-generation", [[0, 1], [2, 3]], r"got \(2, 2\); expected \(2, 3\)"),
        ("text2text-generation", [[0, 1, 2]], r"got \(1, 3\); expected \(2, target_tokens\)"),
        ("text2text-generation", [0, 1], r"got \(2,\); expected \(2, target_tokens\)"),
        (
            "text2text-generation",
            np.zeros((2, 0), np.int64),
            r"got \(2, 0\); expected \(2, target_tokens\)",
        ),
    ],
)
def test_labels_of_another_shape_are_refused(task: Task, labels: Any, expected: str) -> None:
    with pytest.raises(DataError, match=f"shape of labels in a batch; {expected}"):
        _labelled(task, labels)


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        ("text-classification", [0, 2], "got 1 of 2; expected 0 to 1"),
        ("text-classification", [0, -100], "got 1 of 2; expected 0 to 1"),
        ("text-generation", [[8, 3, 7], [4, -1, -100]], "got 2 of 6; expected 0 to 7, or -100"),
        ("text2text-generation", [[1], [8]], "got 1 of 2; expected 0 to 7, or -100"),
    ],
)
def test_labels_out_of_range_are_counted_and_not_quoted(task: Task, labels: Any, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        _labelled(task, labels)
    assert str(caught.value) == f"labels of a batch are out of range; {expected}"


def test_labels_that_are_no_whole_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="dtype of labels in a batch; got float64; expected int64"):
        _labelled("text-classification", [0.0, 1.0])


def test_pictures_are_fed_in_single_precision() -> None:
    manifest = tiny_manifest(tiny_files(), "image-classification")
    pixels = np.arange(24.0).reshape(2, 3, 2, 2)
    fed = input_feeds(manifest, {"pixel_values": pixels})["pixel_values"]
    assert fed.dtype == np.float32
    assert (fed == pixels).all()
    assert _labelled("image-classification", [1, 0], PICTURES).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (
            np.zeros((2, 3, 2, 3), np.float32),
            r"shape .*got \(2, 3, 2, 3\); expected \(batch, 3, 2, 2\) with batch 2",
        ),
        (np.zeros((3, 2, 2), np.float32), r"shape .*got \(3, 2, 2\); expected \(batch, 3, 2, 2\)"),
        (np.zeros((0, 3, 2, 2), np.float32), r"shape .*got \(0, 3, 2, 2\)"),
        (np.zeros((2, 3, 2, 2), np.uint8), "dtype .*got uint8; expected float32"),
        (np.full((2, 3, 2, 2), np.nan, np.float32), "got NaN or infinity; expected finite numbers"),
        (np.full((2, 3, 2, 2), 1e300), "got NaN or infinity; expected finite numbers"),
    ],
)
def test_pictures_of_another_kind_are_refused(pixels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        input_feeds(tiny_manifest(tiny_files(), "image-classification"), {"pixel_values": pixels})


def test_texts_of_unlike_length_are_refused() -> None:
    batch = {**TEXT, "attention_mask": np.ones((2, 4), np.int64)}
    with pytest.raises(
        DataError, match=r"shape of attention_mask .*expected \(batch, tokens\) with .*tokens 3"
    ):
        input_feeds(tiny_manifest(tiny_files()), batch)


def test_decoder_reads_a_text_of_its_own_length() -> None:
    manifest = tiny_manifest(tiny_files(), "text2text-generation")
    fed = decoder_feeds(manifest, {**TEXT, "decoder_input_ids": np.array([[0], [0]])})
    assert fed["decoder_input_ids"].tolist() == [[0], [0]]
    with pytest.raises(DataError, match="expected decoder_input_ids"):
        decoder_feeds(manifest, TEXT)
    with pytest.raises(DataError, match=r"got \(1, 1\); expected \(2, target_tokens\)"):
        decoder_feeds(manifest, {**TEXT, "decoder_input_ids": np.array([[0]])})


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[2, 3, 7], [4, -1, 0]], "got 1 of 6; expected 0 to 7"),
        ([[2, 8, 7], [9, 7, 0]], "got 2 of 6; expected 0 to 7"),
        (np.full((2, 3), 2**64 - 1, np.uint64), "expected numbers of int64"),
    ],
    ids=["below 0", "beyond the vocabulary", "beyond int64"],
)
def test_numbers_that_are_no_tokens_are_counted_and_not_quoted(tokens: Any, message: str) -> None:
    manifest = tiny_manifest(tiny_files(), "text-generation")
    with pytest.raises(DataError) as caught:
        input_feeds(manifest, {**TEXT, "input_ids": np.asarray(tokens)})
    assert str(caught.value) == f"input_ids of a batch are out of range; {message}"


def test_largest_token_passes_also_as_an_unsigned_number() -> None:
    tokens = np.full((2, 3), 7, np.uint64)
    fed = input_feeds(tiny_manifest(tiny_files(), "text-generation"), {**TEXT, "input_ids": tokens})
    assert fed["input_ids"].tolist() == [[7, 7, 7]] * 2


@pytest.mark.parametrize("name", ["input_ids", "attention_mask"])
def test_number_below_zero_is_refused_where_no_vocabulary_is_known(name: str) -> None:
    batch = {**TEXT, name: TEXT[name] - 8}
    with pytest.raises(
        DataError, match=f"{name} of a batch are out of range; got 6 of 6; expected 0 or more"
    ):
        input_feeds(tiny_manifest(tiny_files()), batch)


def test_decoder_reads_tokens_of_the_vocabulary_alone() -> None:
    manifest = tiny_manifest(tiny_files(), "text2text-generation")
    with pytest.raises(DataError, match="decoder_input_ids of a batch are out of range; got 1 of 2"):
        decoder_feeds(manifest, {**TEXT, "decoder_input_ids": np.array([[8], [0]])})


def test_text_longer_than_the_bundle_takes_is_refused() -> None:
    longest = {name: np.ones((2, 16), np.int64) for name in TEXT}
    manifest = tiny_manifest(tiny_files(), "text2text-generation")
    assert input_feeds(manifest, longest)["input_ids"].shape == (2, 16)
    with pytest.raises(DataError, match="tokens of input_ids in a batch; got 17; expected up to 16"):
        input_feeds(manifest, {name: np.ones((2, 17), np.int64) for name in TEXT})
    with pytest.raises(DataError, match="tokens of labels in a batch; got 17; expected up to 16"):
        labelled_feeds(manifest, {**longest, "labels": np.ones((2, 17), np.int64)})


def test_lists_of_unlike_length_are_refused() -> None:
    with pytest.raises(DataError, match="input_ids in a batch is no array; expected rows of one length"):
        input_feeds(tiny_manifest(tiny_files()), {**TEXT, "input_ids": [[2, 3], [4]]})  # type: ignore[dict-item]


def test_stamped_sizes_hold_for_answers_too() -> None:
    manifest = tiny_manifest(tiny_files(), "text2text-generation")
    inputs = tuple(tensor.model_copy(update={"shape": (2, 3)}) for tensor in manifest.inputs)
    stamped = manifest.model_copy(update={"inputs": inputs})
    assert labelled_feeds(stamped, {**TEXT, "labels": np.ones((2, 3), np.int64)})["labels"].shape == (2, 3)
    with pytest.raises(DataError, match=r"shape of labels in a batch; got \(2, 2\); expected \(2, 3\)"):
        labelled_feeds(stamped, {**TEXT, "labels": np.ones((2, 2), np.int64)})
