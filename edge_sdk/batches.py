"""Batches out of the example store, in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from edge_sdk.collation import Collate, collate_for
from edge_sdk.examples import ExampleStore
from edge_sdk.runtimes.base import Batch
from edge_sdk.tokens import text_encoder
from hetlora.bundle import Bundle
from hetlora.errors import DataError, NoExamples
from hetlora.manifest import Task, reads_images
from hetlora.messages.device import TrainingSettings


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


@dataclass(frozen=True, slots=True)
class Batching:
    """How examples become batches for the graphs of a bundle; see `draw_batches`."""

    collate: Collate
    batch_size: int
    always_full: bool


def batching_of(bundle: Bundle, settings: TrainingSettings) -> Batching:
    """The batches of a run, in the sizes that a bundle leaves it."""
    manifest = bundle.manifest
    encoder = text_encoder(bundle, max_tokens=settings.max_tokens)
    rows = encoder.sizes.rows or settings.batch_size
    return Batching(
        collate_for(manifest.task, manifest.labels, encoder),
        batch_size=min(rows, settings.batch_size) if manifest.generates else rows,
        always_full=encoder.sizes.rows is not None and not manifest.generates,
    )


def each_once(
    store: ExampleStore, batching: Batching, *, rng: np.random.Generator
) -> Iterator[tuple[Batch, int]]:
    """Every example once, in a shuffled order, batch by batch, each with how many examples it has.

    Where batches have to be full, the last repeats examples beyond those that it has.
    """
    ids = rng.permutation(np.array(store.ids(), dtype=np.int64))
    for start in range(0, len(ids), batching.batch_size):
        examples = store.get(ids[start : start + batching.batch_size].tolist())
        if examples:
            whole = islice(cycle(examples), batching.batch_size) if batching.always_full else examples
            yield batching.collate([*whole]), len(examples)


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
