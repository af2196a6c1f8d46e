"""Batches checked against the manifest before native code reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch
from hetlora.errors import DataError
from hetlora.graph_names import LABELS
from hetlora.manifest import Manifest

Feeds = dict[str, NDArray[Any]]


def token_feeds(manifest: Manifest, batch: Batch) -> Feeds:
    """The manifest's inputs as int64 of one common shape (batch, tokens).

    Raises:
        DataError: an input is missing, or the shapes are others.
    """
    names = [tensor.name for tensor in manifest.inputs]
    feeds = {name: _whole_numbers(batch, name) for name in names}
    shapes = {name: array.shape for name, array in feeds.items()}
    first = shapes[names[0]]
    if len(set(shapes.values())) != 1 or len(first) != 2 or 0 in first:
        raise DataError("inputs of a batch", got=shapes, expected="one shape (batch, tokens) for all")
    return feeds


def labelled_feeds(manifest: Manifest, batch: Batch) -> Feeds:
    """The manifest's inputs and the labels, int64 of (batch,).

    Raises:
        DataError: as for `token_feeds`, or labels that are no classes of the bundle.
    """
    feeds = token_feeds(manifest, batch)
    labels = _whole_numbers(batch, LABELS)
    rows, classes = len(next(iter(feeds.values()))), len(manifest.labels)
    if labels.shape != (rows,) or labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            "labels of a batch",
            got=f"shape {labels.shape}, {labels.ravel().tolist()}",
            expected=f"({rows},) of 0 to {classes - 1}",
        )
    return {**feeds, LABELS: labels}


def _whole_numbers(batch: Batch, name: str) -> NDArray[np.int64]:
    if name not in batch:
        raise DataError("an input is missing in a batch", got=sorted(batch), expected=name)
    array = np.asarray(batch[name])
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"dtype of {name} in a batch", got=array.dtype, expected="int64")
    return np.ascontiguousarray(array, dtype=np.int64)
