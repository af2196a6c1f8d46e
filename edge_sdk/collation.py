"""Examples to the arrays of one batch, by the task of the bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edge_sdk.examples import Example
from edge_sdk.runtimes.base import Batch
from edge_sdk.tokens import TextEncoder, padded
from hetlora.errors import DataError
from hetlora.graph_names import IGNORED_LABEL, LABELS
from hetlora.manifest import Task, has_decoder, takes_labels

Collate = Callable[[Sequence[Example]], Batch]


def collate_for(task: Task, labels: Sequence[str], encoder: TextEncoder) -> Collate:
    """How examples of text become a batch.

    A classifier learns `label` as one of `labels`. A language model reads `text` and learns to go on with
    `label`, word for word: where a space stands between them, it must begin the label. A model with a
    decoder of its own learns to answer `text` with `label`. Both learn the end after it.

    Graphs of a fixed number of rows get a smaller batch of text to be generated filled up with rows in which
    no label counts. The mean over classes has no such rows: there a batch is full, or refused.
    """
    if takes_labels(task):
        index = {label: position for position, label in enumerate(labels)}
        return lambda examples: _classes(examples, encoder, index)
    if has_decoder(task):
        return lambda examples: _answers(examples, encoder)
    return lambda examples: _continuations(examples, encoder)


def _classes(examples: Sequence[Example], encoder: TextEncoder, index: dict[str, int]) -> Batch:
    if len(examples) != (encoder.sizes.rows or len(examples)):
        raise DataError(
            "the bundle is stamped for another number of examples in a batch",
            got=len(examples),
            expected=encoder.sizes.rows,
        )
    arrays = encoder.encode([example.text for example in examples])
    try:
        labels = [index[example.label] for example in examples]
    except KeyError as error:  # replaced by the app since check_examples
        raise DataError("an example carries a label that the bundle does not know") from error
    return {**arrays, LABELS: np.array(labels, dtype=np.int64)}


def _continuations(examples: Sequence[Example], encoder: TextEncoder) -> Batch:
    """The continuation alone is learned; where both do not fit, the text loses its beginning first."""
    rows, labels = [], []
    for example in examples:
        continuation = encoder.ids(example.label, ends=True)[: encoder.max_tokens - 1]
        text = encoder.prompt_ids(example.text, room=encoder.max_tokens - len(continuation))
        rows.append(text + continuation)
        labels.append([IGNORED_LABEL] * len(text) + continuation)
    return {**encoder.arrays(rows), LABELS: padded(labels, IGNORED_LABEL, encoder.sizes)}


def _answers(examples: Sequence[Example], encoder: TextEncoder) -> Batch:
    arrays = encoder.encode([example.text for example in examples])
    answers = [encoder.ids(example.label, ends=True)[: encoder.max_tokens] for example in examples]
    return {**arrays, LABELS: padded(answers, IGNORED_LABEL, encoder.sizes)}
