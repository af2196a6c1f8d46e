"""Batches checked against the manifest before native code reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch
from hetlora.errors import DataError
from hetlora.graph_names import DECODER_INPUT_IDS, IGNORED_LABEL, LABELS
from hetlora.manifest import Manifest, TensorInput

Feeds = dict[str, NDArray[Any]]


def input_feeds(manifest: Manifest, batch: Batch) -> Feeds:
    """The manifest's inputs, each of its dtype and of dimensions that fit together.

    Raises:
        DataError: an input is missing, empty, or of another shape or dtype.
    """
    feeds = {tensor.name: _array(batch, tensor) for tensor in manifest.inputs}
    sizes: dict[str | int, int] = {}
    for tensor in manifest.inputs:
        shape = feeds[tensor.name].shape
        fits = len(shape) == len(tensor.shape) and 0 not in shape
        if not fits or any(
            _size(dim, got, sizes) != got for dim, got in zip(tensor.shape, shape, strict=True)
        ):
            raise DataError(
                f"shape of {tensor.name} in a batch",
                got=shape,
                expected=f"({', '.join(map(str, tensor.shape))}) with {_in_words(sizes) or 'no size of 0'}",
            )
    return feeds


def decoder_feeds(manifest: Manifest, batch: Batch) -> Feeds:
    """`input_feeds` and, for a model with a decoder of its own, what that has read so far.

    Raises:
        DataError: as `input_feeds`.
    """
    feeds = input_feeds(manifest, batch)
    if manifest.task == "text2text-generation":
        feeds[DECODER_INPUT_IDS] = _whole_numbers(batch, DECODER_INPUT_IDS)
    return feeds


def labelled_feeds(manifest: Manifest, batch: Batch) -> Feeds:
    """The manifest's inputs and the labels, int64.

    (batch,) positions in the manifest's labels; for generated text (batch, tokens) token numbers, of the
    target where there is one and else each the input's own, IGNORED_LABEL where they do not count.

    Raises:
        DataError: as `input_feeds`, or labels that the bundle does not know.
    """
    feeds = input_feeds(manifest, batch)
    labels = _whole_numbers(batch, LABELS)
    first = next(iter(feeds.values()))
    if manifest.generation is None:
        classes, expected, counted = len(manifest.labels), f"({len(first)},)", labels
        fits = labels.shape == (len(first),)
    else:
        classes, counted = manifest.generation.vocabulary, labels[labels != IGNORED_LABEL]
        own_length = manifest.task == "text2text-generation"
        expected = f"({len(first)}, target_tokens)" if own_length else str(first.shape)
        fits = labels.ndim == 2 and labels.size > 0 and len(labels) == len(first)
        fits = fits and (own_length or labels.shape == first.shape)
    if not fits or (counted.size and not 0 <= counted.min() <= counted.max() < classes):
        raise DataError(
            "labels of a batch",
            got=f"shape {labels.shape}, {labels.ravel()[:16].tolist()}",
            expected=f"{expected} of 0 to {classes - 1}",
        )
    return {**feeds, LABELS: labels}


def _array(batch: Batch, tensor: TensorInput) -> NDArray[Any]:
    if tensor.dtype == "int64":
        return _whole_numbers(batch, tensor.name)
    array = _present(batch, tensor.name)
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        raise DataError(f"{tensor.name} in a batch", got=array.dtype, expected="finite numbers of float32")
    return np.ascontiguousarray(array, dtype=np.float32)


def _whole_numbers(batch: Batch, name: str) -> NDArray[np.int64]:
    array = _present(batch, name)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"dtype of {name} in a batch", got=array.dtype, expected="int64")
    return np.ascontiguousarray(array, dtype=np.int64)


def _present(batch: Batch, name: str) -> NDArray[Any]:
    if name not in batch:
        raise DataError("an input is missing in a batch", got=sorted(batch), expected=name)
    return np.asarray(batch[name])


def _size(dim: str | int, got: int, sizes: dict[str | int, int]) -> int:
    """What a dimension must be: its own number, or what its symbol stood for first."""
    return dim if isinstance(dim, int) else sizes.setdefault(dim, got)


def _in_words(sizes: dict[str | int, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
