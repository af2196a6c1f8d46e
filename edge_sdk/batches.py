"""Batches out of the example store, in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import numpy as np

from edge_sdk.collation import Collate
from edge_sdk.examples import ExampleStore
from edge_sdk.runtimes.base import Batch
from hetlora.errors import DataError, NoExamples
from hetlora.manifest import Task, reads_images


def check_examples(store: ExampleStore, task: Task, labels: Sequence[str]) -> None:
    """Raise unless there are examples and, where there are `labels`, the bundle knows the label of each.

    Raises:
        NoExamples: the store is empty.
        DataError: a label that is not among `labels`, or a model of pictures: the store holds text.
    """
    if reads_images(task):
        raise DataError("the example store holds text alone", got=task, expected="a bundle for text")
    counts = store.labels()
    if not counts:
        raise NoExamples("this device holds no examples", expected="at least one labelled text")
    strange = sorted(counts.keys() - set(labels)) if labels else []
    if strange:
        raise DataError(
            "examples carry labels that the bundle does not know",
            got=strange[:5],
            expected=f"labels of {[*labels]}",
        )


def draw_batches(
    store: ExampleStore,
    collate: Collate,
    *,
    batch_size: int,
    always_full: bool = False,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Endless batches of `batch_size` examples, or of all of them where there are fewer.

    The order is one shuffle after another, so that each example comes once before any comes twice. Texts are
    read batch by batch: memory does not grow with the store. With `always_full`, for graphs that take no
    smaller batch, examples stand in one batch several times where there are too few.

    Raises:
        NoExamples: the store is empty, or was emptied meanwhile.
    """
    ids = np.array(store.ids(), dtype=np.int64)
    size = batch_size if always_full else min(batch_size, len(ids))
    order = ids[:0]
    while True:
        while len(order) < size and len(ids):
            order = np.concatenate([order, rng.permutation(ids)])
        chosen, order = order[:size], order[size:]
        examples = store.get(chosen.tolist())
        if not examples:
            raise NoExamples("the examples were deleted", expected="at least one labelled text")
        yield collate([*islice(cycle(examples), size)] if always_full else examples)
