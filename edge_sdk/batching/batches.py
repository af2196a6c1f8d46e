"""Batches out of the example store, in a seeded order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice
from typing import Any, Protocol

import numpy as np

from edge_sdk.batching.collation import KINDS, Collate, ImageCollation, TextCollation
from edge_sdk.batching.tokenised import Shortened, Tokenised, encoding_of
from edge_sdk.batching.tokens import TextEncoder, text_encoder
from edge_sdk.examples import ExampleStore
from edge_sdk.runtimes.base import Batch
from hetlora.bundle import Bundle
from hetlora.errors import DataError, NoExamples
from hetlora.fixed_sizes import fixed_sizes
from hetlora.manifest import Task, reads_images
from hetlora.messages.device import TrainingSettings


class Source(Protocol):
    """What batches are drawn from: a store, or what was made of its examples."""

    def ids(self) -> list[int]:
        """Row numbers for `get`, oldest first."""

    def get(self, ids: Sequence[int]) -> Sequence[Any]:
        """What there is of these rows, in their order; what was removed meanwhile is left out."""


def check_examples(store: ExampleStore, task: Task, labels: Sequence[str]) -> None:
    """Raise unless there are examples that the task learns from and, where there are `labels`, with these.

    Raises:
        NoExamples: the store is empty.
        DataError: a kind that the task does not learn from, or a label that is not among `labels`.
    """
    kinds = store.kinds()
    if not kinds:
        raise NoExamples("this device holds no examples", expected=f"at least one for {task}")
    strange_kinds = sorted(kinds.keys() - set(KINDS[task]))
    if strange_kinds:
        raise DataError(
            "the device holds examples of kinds that the task does not learn from",
            got=strange_kinds,
            expected=f"{task} from {', '.join(KINDS[task])}",
        )
    strange = sorted(store.labels().keys() - set(labels)) if labels else []
    if strange:
        raise DataError(
            "examples carry labels that the bundle does not know",
            got=strange[:5],
            expected=f"labels of {[*labels]}",
        )


def _as_they_are(store: ExampleStore) -> Source:
    return store


@dataclass(frozen=True, slots=True)
class Batching:
    """How examples become batches for the graphs of a bundle; see `draw_batches`.

    `read` is what `collate` takes of a store: its examples, or tokens of them.
    """

    collate: Collate
    batch_size: int
    always_full: bool = False
    read: Callable[[ExampleStore], Source] = _as_they_are


def batching_of(bundle: Bundle, settings: TrainingSettings, *, longest_tokens: int | None = None) -> Batching:
    """The batches of a run, in the sizes that a bundle leaves it.

    `longest_tokens` is of the longest text that memory was planned for: one that has grown since is cut.

    Raises:
        BundleInvalid: inputs that neither text nor images can fill.
    """
    manifest = bundle.manifest
    if reads_images(manifest.task):
        rows = fixed_sizes(manifest).rows
        return Batching(ImageCollation(manifest), rows or settings.batch_size, rows is not None)
    encoder = text_encoder(bundle, max_tokens=settings.max_tokens)
    rows = encoder.sizes.rows
    collation = TextCollation(manifest.task, manifest.labels, encoder)

    def rows_of(store: ExampleStore, cut: TextEncoder) -> Tokenised:
        make = TextCollation(manifest.task, manifest.labels, cut).row
        return Tokenised(store, make, encoding_of(manifest, max_tokens=cut.max_tokens))

    def read(store: ExampleStore) -> Source:
        rows = rows_of(store, encoder)
        if longest_tokens is None or longest_tokens >= encoder.max_tokens:
            return rows
        return Shortened(rows, rows_of(store, encoder.cut_to(longest_tokens)), longest_tokens)

    return Batching(
        collation.batch,
        batch_size=min(rows or settings.batch_size, settings.batch_size)
        if manifest.generates
        else rows or settings.batch_size,
        always_full=rows is not None and not manifest.generates,
        read=read,
    )


def each_once(
    store: Source,
    batching: Batching,
    *,
    rng: np.random.Generator,
    ids: Sequence[int] | None = None,
) -> Iterator[tuple[Batch, int]]:
    """Every example once, in a shuffled order, batch by batch, each with how many examples it has.

    Where batches have to be full, the last repeats examples beyond those that it has. With `ids` these
    examples alone, as far as they are still there.
    """
    order = rng.permutation(np.array(store.ids() if ids is None else ids, dtype=np.int64))
    for start in range(0, len(order), batching.batch_size):
        examples = store.get(order[start : start + batching.batch_size].tolist())
        if examples:
            whole = islice(cycle(examples), batching.batch_size) if batching.always_full else examples
            yield batching.collate([*whole]), len(examples)


def draw_batches(
    store: Source,
    batching: Batching,
    *,
    rng: np.random.Generator,
    skip: int = 0,
) -> Iterator[Batch]:
    """Endless batches of `batch_size` examples, or of all of them where there are fewer.

    The order is one shuffle after another, so that each example comes once before any comes twice. Examples
    are read batch by batch: memory does not grow with the store. With `always_full`, for graphs that take no
    smaller batch, examples stand in one batch several times where there are too few.

    The first `skip` batches are drawn and not read: of the same examples, what comes then is what came after
    them before. Examples that are removed meanwhile are left out, and a batch of none but those is passed by.

    Raises:
        NoExamples: the store is empty, or was emptied meanwhile.
    """
    ids = np.array(store.ids(), dtype=np.int64)
    size = batching.batch_size if batching.always_full else min(batching.batch_size, len(ids))
    order = ids[:0]
    for number in count():
        while len(order) < size and len(ids):
            order = np.concatenate([order, rng.permutation(ids)])
        chosen, order = order[:size], order[size:]
        if number < skip:
            continue
        examples = store.get(chosen.tolist())
        if examples:
            whole = islice(cycle(examples), size) if batching.always_full else examples
            yield batching.collate([*whole])
        elif not np.isin(store.ids(), ids).any():
            raise NoExamples("the examples were deleted", expected="at least one")
