"""A batch in parts whose losses and gradients add up to those of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.feeds import labelled_feeds
from hetlora.graph_names import IGNORED_LABEL, LABELS
from hetlora.manifest import Manifest, Task, has_decoder


def micro_batches(manifest: Manifest, batch: Batch, most_rows: int | None) -> list[tuple[Batch, float]]:
    """Parts of at most `most_rows` rows, each with its share of the mean over the whole batch.

    Examples of a classifier weigh the same, and so do labels of generated text that count; shares sum to 1.
    Where no label counts they are alike, and where none of a part does that part is left out.

    Raises:
        DataError: as `labelled_feeds`, where there are several parts.
    """
    if most_rows is None or _has_rows(batch.get(LABELS), most_rows):
        return [(batch, 1.0)]
    feeds = labelled_feeds(manifest, batch)
    counts = scored_places(manifest.task, feeds[LABELS])
    starts = range(0, len(counts), most_rows)
    totals = [int(counts[start : start + most_rows].sum()) for start in starts]
    shares = [total / sum(totals) if any(totals) else 1 / len(totals) for total in totals]
    return [
        ({name: array[start : start + most_rows] for name, array in feeds.items()}, share)
        for start, share in zip(starts, shares, strict=True)
        if share
    ]


def _has_rows(labels: object, most: int) -> bool:
    """Whether there are so many or fewer, so that the runtime's own look at the batch is the only one."""
    return isinstance(labels, np.ndarray) and labels.ndim > 0 and len(labels) <= most


def scored_places(task: Task, labels: NDArray[Any]) -> NDArray[np.int64]:
    """How many labels of each row are scored; without a decoder of its own each by the place before it."""
    if labels.ndim == 1:
        return np.ones(len(labels), np.int64)
    scored = labels if has_decoder(task) else labels[:, 1:]
    counts: NDArray[np.int64] = (scored != IGNORED_LABEL).sum(axis=1, dtype=np.int64)
    return counts
