"""Bundles whose graphs take one size. [PAD] 0, [UNK] 1, snow 2, ice 3, sun 4, sand 5, and 6, [END] 7."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from fake_bundle import END, LABELS, WORDS, bundle_on_disk, stamped
from fake_runtime import Opened
from fake_service import FakeService
from numpy.typing import NDArray

from edge_sdk.adapters.generation import TextGenerator
from edge_sdk.batching.batches import Batching, draw_batches
from edge_sdk.batching.collation import Collate, TextCollation
from edge_sdk.batching.tokens import text_encoder
from edge_sdk.client import EdgeClient
from edge_sdk.examples import Example, ExampleStore
from edge_sdk.runtimes.base import Batch
from hetlora.adapter import Adapter
from hetlora.errors import DataError
from hetlora.manifest import Task


def _collate(folder: Path, task: Task, *, rows: int, tokens: int) -> Collate:
    labels = LABELS if task == "text-classification" else ()
    return TextCollation(task, labels, text_encoder(bundle_on_disk(folder, task, sizes=(rows, tokens))))


def test_texts_fill_the_sizes_and_the_first_stands_in_rows_left_over(tmp_path: Path) -> None:
    encoder = text_encoder(bundle_on_disk(tmp_path, sizes=(3, 4)))
    arrays = encoder.encode(["sun", "snow and ice"])
    assert arrays["input_ids"].tolist() == [[4, 0, 0, 0], [2, 6, 3, 0], [4, 0, 0, 0]]
    assert arrays["attention_mask"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]


def test_text_is_cut_where_the_run_asks_for_less_and_padded_all_the_same(tmp_path: Path) -> None:
    encoder = text_encoder(bundle_on_disk(tmp_path, sizes=(1, 4)), max_tokens=2)
    assert encoder.encode(["snow and ice"])["input_ids"].tolist() == [[2, 6, 0, 0]]


def test_nothing_is_learned_in_rows_left_over(tmp_path: Path) -> None:
    batch = _collate(tmp_path, "text-generation", rows=2, tokens=5)([Example("sun and", "sand")])
    assert batch["input_ids"].tolist() == [[4, 6, 5, END, 0]] * 2
    assert batch["labels"].tolist() == [[-100, -100, 5, END, -100], [-100] * 5]


def test_answers_are_as_long_as_the_texts(tmp_path: Path) -> None:
    batch = _collate(tmp_path, "text2text-generation", rows=2, tokens=3)([Example("sun", "sand")])
    assert batch["input_ids"].tolist() == [[4, 0, 0]] * 2
    assert batch["labels"].tolist() == [[5, END, -100], [-100] * 3]


def test_classes_of_fewer_texts_are_refused_as_each_row_counts(tmp_path: Path) -> None:
    collate = _collate(tmp_path, "text-classification", rows=2, tokens=3)
    full = [Example("sun", "warm"), Example("ice", "cold")]
    assert collate(full)["labels"].tolist() == [1, 0]
    with pytest.raises(DataError, match=r"stamped for another number of examples .*; got 1; expected 2"):
        collate(full[:1])


def test_full_batches_go_round_a_small_store_evenly(tmp_path: Path) -> None:
    store = ExampleStore(tmp_path / "examples.sqlite")
    store.put_many([Example("snow", "cold", "a"), Example("sun", "warm", "b")])
    collate = _collate(tmp_path, "text-classification", rows=5, tokens=3)
    batches = draw_batches(store, Batching(collate, 5, always_full=True), rng=np.random.default_rng(0))
    drawn = Counter(int(row[0]) for batch in islice(batches, 4) for row in batch["input_ids"])
    assert drawn == {2: 10, 4: 10}  # four batches of five
    store.delete("a")
    assert next(batches)["input_ids"][:, 0].tolist() == [4] * 5


class Counting:
    """Finds the token after the last one read; takes one shape alone."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        read = batch.get("decoder_input_ids", batch["input_ids"])
        assert {array.shape for array in batch.values()} == {self.shape}
        return np.eye(len(WORDS), dtype=np.float32)[(read + 1) % len(WORDS)]


@pytest.mark.parametrize(
    ("task", "tokens", "expected"),
    [
        ("text-generation", 6, (4, 5, 6)),
        ("text-generation", 4, (4, 5)),  # room for four tokens in all
        ("text2text-generation", 4, (1, 2, 3)),  # from [PAD] 0
    ],
)
def test_text_is_generated_amid_padding(
    task: Task, tokens: int, expected: tuple[int, ...], tmp_path: Path
) -> None:
    bundle = bundle_on_disk(tmp_path, task, sizes=(2, tokens))
    assert TextGenerator(bundle, Counting(2, tokens)).generate("snow ice").token_ids == expected


def _visit(service: FakeService, make_client: Callable[..., EdgeClient]) -> tuple[str, list[Batch]]:
    opened = Opened()
    visit = make_client(runtime=opened, http=service.http).run_once()
    return visit.code or visit.outcome, [batch for runtime in opened.runtimes for batch in runtime.batches]


@pytest.mark.parametrize("task", ["text-classification", "text-generation", "text2text-generation"])
@pytest.mark.parametrize("rows", [1, 3])
def test_device_trains_in_batches_of_the_stamped_size(
    task: Task, rows: int, make_client: Callable[..., EdgeClient]
) -> None:
    service = FakeService(task=task, change=lambda manifest: stamped(manifest, rows=rows, tokens=6))
    outcome, batches = _visit(service, make_client)  # two examples, and a run that wants two in a batch
    assert (outcome, len(batches)) == ("accepted", 3)
    assert {batch["input_ids"].shape for batch in batches} == {(rows, 6)}
    assert {len(batch["labels"]) for batch in batches} == {rows}


def test_offer_of_other_ranks_than_the_stamped_one_is_not_begun(
    make_client: Callable[..., EdgeClient],
) -> None:
    service = FakeService(min_rank=3, change=lambda manifest: stamped(manifest, rows=1, tokens=6, rank=2))
    assert _visit(service, make_client) == ("rank_out_of_range", [])
    assert not any(request.endswith("/start") for request in service.requests)
    assert service.fetched() == ["manifest.json"]
