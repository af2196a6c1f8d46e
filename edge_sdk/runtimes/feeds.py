"""Batches checked against the manifest before native code reads them."""

from __future__ import annotations

from collections.abc import Sequence
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
                expected=f"{_in_brackets(tensor.shape)} with {_in_words(sizes) or 'no size of 0'}",
            )
    return feeds


def decoder_feeds(manifest: Manifest, batch: Batch) -> Feeds:
    """`input_feeds` and, for a model with a decoder of its own, what that has read so far.

    Raises:
        DataError: as `input_feeds`.
    """
    feeds = input_feeds(manifest, batch)
    if manifest.task == "text2text-generation":
        read = _whole_numbers(batch, DECODER_INPUT_IDS)
        _check_shape(DECODER_INPUT_IDS, read, (_rows(feeds), "target_tokens"))
        feeds[DECODER_INPUT_IDS] = read
    return feeds


def labelled_feeds(manifest: Manifest, batch: Batch) -> Feeds:
    """The manifest's inputs and the labels, int64.

    Of a classifier (batch,), positions in the manifest's labels. Of a model that goes on with a text (batch,
    tokens), each the token itself, the first of which is nobody's to foresee; of one that answers (batch,
    target_tokens). There IGNORED_LABEL does not count, and where no label counts the loss is 0: a text with
    nothing to learn is no reason to give a whole round back.

    Raises:
        DataError: as `input_feeds`, or labels that the bundle does not know. Their values are not told, as
            tokens are somebody's text.
    """
    feeds = input_feeds(manifest, batch)
    labels = _whole_numbers(batch, LABELS)
    _check_shape(LABELS, labels, _label_shape(manifest, feeds))
    counts, classes, ignored = np.ones(labels.shape, bool), len(manifest.labels), ""
    if manifest.generation is not None:
        counts = labels != IGNORED_LABEL
        classes, ignored = manifest.generation.vocabulary, f", or {IGNORED_LABEL}"
    strange = int((counts & ((labels < 0) | (labels >= classes))).sum())
    if strange:
        raise DataError(
            "labels of a batch are out of range",
            got=f"{strange} of {labels.size}",
            expected=f"0 to {classes - 1}{ignored}",
        )
    return {**feeds, LABELS: labels}


def _label_shape(manifest: Manifest, feeds: Feeds) -> tuple[str | int, ...]:
    match manifest.task:
        case "text-generation":
            return next(iter(feeds.values())).shape
        case "text2text-generation":
            return (_rows(feeds), "target_tokens")
        case _:
            return (_rows(feeds),)


def _rows(feeds: Feeds) -> int:
    return len(next(iter(feeds.values())))


def _check_shape(name: str, array: NDArray[Any], wanted: Sequence[str | int]) -> None:
    """A word among the `wanted` sizes stands for any but 0."""
    fits = array.ndim == len(wanted) and array.size > 0
    if not fits or any(isinstance(n, int) and n != got for n, got in zip(wanted, array.shape, strict=True)):
        raise DataError(f"shape of {name} in a batch", got=array.shape, expected=_in_brackets(wanted))


def _array(batch: Batch, tensor: TensorInput) -> NDArray[Any]:
    if tensor.dtype == "int64":
        return _whole_numbers(batch, tensor.name)
    array = _present(batch, tensor.name)
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"dtype of {tensor.name} in a batch", got=array.dtype, expected="float32")
    with np.errstate(over="ignore"):  # becomes infinity, which is refused below
        single = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(single).all():
        raise DataError(f"{tensor.name} in a batch", got="NaN or infinity", expected="finite numbers")
    return single


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


def _in_brackets(sizes: Sequence[str | int]) -> str:
    return str(tuple(sizes)).replace("'", "")


def _in_words(sizes: dict[str | int, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
