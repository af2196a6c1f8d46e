"""Batches checked against the manifest before native code reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.signature import label_sizes, target_sizes
from hetlora.errors import DataError
from hetlora.graph_names import DECODER_INPUT_IDS, IGNORED_LABEL, INPUT_IDS, LABELS
from hetlora.manifest import Manifest, TensorInput, has_decoder

Feeds = dict[str, NDArray[Any]]


def input_feeds(manifest: Manifest, batch: Batch) -> Feeds:
    """The manifest's inputs, each of its dtype and of dimensions that fit together.

    Raises:
        DataError: an input is missing, empty, of another shape or dtype, or longer than the bundle's
            `max_tokens`; or numbers that are no tokens, which are not told, as they are somebody's text.
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
        if tensor.dtype == "int64":
            _check_tokens(manifest, tensor.name, feeds[tensor.name])
    return feeds


def decoder_feeds(manifest: Manifest, batch: Batch) -> Feeds:
    """`input_feeds` and, for a model with a decoder of its own, what that has read so far.

    Raises:
        DataError: as `input_feeds`.
    """
    feeds = input_feeds(manifest, batch)
    if has_decoder(manifest.task):
        read = _whole_numbers(batch, DECODER_INPUT_IDS)
        _check_shape(DECODER_INPUT_IDS, read, _for_rows(feeds, target_sizes(manifest)))
        _check_tokens(manifest, DECODER_INPUT_IDS, read)
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
    first = next(iter(feeds.values()))
    goes_on = manifest.generates and not has_decoder(manifest.task)
    own = first.shape if goes_on else _for_rows(feeds, label_sizes(manifest))
    _check_shape(LABELS, labels, own)
    counts, classes, ignored = np.ones(labels.shape, bool), len(manifest.labels), ""
    if manifest.generation is not None:
        _check_length(manifest, LABELS, labels)
        counts = labels != IGNORED_LABEL
        classes, ignored = manifest.generation.vocabulary, f", or {IGNORED_LABEL}"
    _check_range(LABELS, labels[counts], labels.size, classes, ignored)
    return {**feeds, LABELS: labels}


def _for_rows(feeds: Feeds, sizes: Sequence[str | int]) -> tuple[str | int, ...]:
    """The sizes of what goes with the inputs: as many rows as they have."""
    return (len(next(iter(feeds.values()))), *sizes[1:])


def _check_tokens(manifest: Manifest, name: str, array: NDArray[np.int64]) -> None:
    _check_length(manifest, name, array)
    # ONNX Runtime counts what is below 0 from the end, and trains with other words than it was given.
    words = manifest.generation.vocabulary if manifest.generation is not None else None
    _check_range(name, array, array.size, words if name in (INPUT_IDS, DECODER_INPUT_IDS) else None)


def _check_length(manifest: Manifest, name: str, array: NDArray[np.int64]) -> None:
    if array.shape[1] > manifest.max_tokens:
        raise DataError(
            f"tokens of {name} in a batch", got=array.shape[1], expected=f"up to {manifest.max_tokens}"
        )


def _check_range(name: str, numbers: NDArray[np.int64], of: int, end: int | None, or_else: str = "") -> None:
    if numbers.size and (numbers.min() < 0 or (end is not None and numbers.max() >= end)):
        below = numbers < 0
        strange = int((below if end is None else below | (numbers >= end)).sum())
        raise DataError(
            f"{name} of a batch are out of range",
            got=f"{strange} of {of}",
            expected="0 or more" if end is None else f"0 to {end - 1}{or_else}",
        )


def _check_shape(name: str, array: NDArray[Any], wanted: Sequence[str | int]) -> None:
    """A word among the `wanted` sizes stands for any but 0."""
    fits = array.ndim == len(wanted) and array.size > 0
    if not fits or any(isinstance(n, int) and n != got for n, got in zip(wanted, array.shape, strict=True)):
        raise DataError(f"shape of {name} in a batch", got=array.shape, expected=_in_brackets(wanted))


def _array(batch: Batch, tensor: TensorInput) -> NDArray[Any]:
    if tensor.dtype == "int64":
        return _whole_numbers(batch, tensor.name)
    array = _present(batch, tensor.name)
    if array.dtype.kind != "f":
        raise DataError(f"dtype of {tensor.name} in a batch", got=array.dtype, expected="float32")
    with np.errstate(over="ignore"):  # becomes infinity, which is refused below
        single = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(single).all():
        raise DataError(f"{tensor.name} in a batch", got="NaN or infinity", expected="finite numbers")
    return single


def _whole_numbers(batch: Batch, name: str) -> NDArray[np.int64]:
    array = _present(batch, name)
    if array.dtype.kind not in "iu":
        raise DataError(f"dtype of {name} in a batch", got=array.dtype, expected="int64")
    if array.dtype == np.uint64 and (array > np.iinfo(np.int64).max).any():
        raise DataError(f"{name} of a batch are out of range", expected="numbers of int64")
    return np.ascontiguousarray(array, dtype=np.int64)


def _present(batch: Batch, name: str) -> NDArray[Any]:
    if name not in batch:
        raise DataError("an input is missing in a batch", got=sorted(batch), expected=name)
    try:
        return np.asarray(batch[name])
    except ValueError as error:  # lists of unlike length; the message quotes no numbers
        raise DataError(f"{name} in a batch is no array", expected="rows of one length") from error


def _size(dim: str | int, got: int, sizes: dict[str | int, int]) -> int:
    """What a dimension must be: its own number, or what its symbol stood for first."""
    return dim if isinstance(dim, int) else sizes.setdefault(dim, got)


def _in_brackets(sizes: Sequence[str | int]) -> str:
    return str(tuple(sizes)).replace("'", "")


def _in_words(sizes: dict[str | int, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
