"""Text to batches: the bundle's tokenizer, the manifest's input names, a seeded order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from edge_sdk.examples import Example, ExampleStore
from edge_sdk.runtimes.base import Batch
from hetlora.errors import BundleInvalid, DataError, NoExamples
from hetlora.graph_names import ATTENTION_MASK, INPUT_IDS, LABELS, TOKEN_TYPE_IDS
from hetlora.manifest import TensorInput

# Which field of an encoding fills which input.
_FIELDS = {INPUT_IDS: "ids", ATTENTION_MASK: "attention_mask", TOKEN_TYPE_IDS: "type_ids"}
# The padding token of a tokenizer that names none; what stands there is masked.
_PADDING_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")


class TextEncoder:
    """Texts to the arrays that the graphs of one bundle take.

    Args:
        tokenizer_file: tokenizer.json of the bundle.
        inputs: what the manifest says the graphs take.
        max_tokens: longer texts are cut here.

    Raises:
        BundleInvalid: a tokenizer that cannot be read, or an input that text cannot fill.
    """

    def __init__(self, tokenizer_file: Path, inputs: Sequence[TensorInput], *, max_tokens: int) -> None:
        strange = [field.name for field in inputs if field.name not in _FIELDS or field.dtype != "int64"]
        if strange:
            raise BundleInvalid("inputs that text cannot fill", got=strange, expected=f"int64 {[*_FIELDS]}")
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the Rust library raises nothing narrower
            raise BundleInvalid(f"{tokenizer_file.name} is no tokenizer", got=error) from error
        self._names = [field.name for field in inputs]
        _pad_to_longest(self._tokenizer)
        self._tokenizer.enable_truncation(max_length=max_tokens)

    def encode(self, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Arrays of (texts, tokens) int64 by input name, padded to the longest of these texts."""
        encodings = self._tokenizer.encode_batch(list(texts))
        return {
            name: np.array([getattr(encoding, _FIELDS[name]) for encoding in encodings], dtype=np.int64)
            for name in self._names
        }


def _pad_to_longest(tokenizer: Tokenizer) -> None:
    given = tokenizer.padding or {}
    known = (token for token in _PADDING_TOKENS if tokenizer.token_to_id(token) is not None)
    token = given.get("pad_token") or next(known, None)
    tokenizer.enable_padding(
        direction=given.get("direction", "right"),
        pad_id=given.get("pad_id", 0 if token is None else tokenizer.token_to_id(token)),
        pad_type_id=given.get("pad_type_id", 0),
        pad_token=token or "[PAD]",
    )


def check_labels(store: ExampleStore, labels: Sequence[str]) -> None:
    """Raise unless there are examples and the bundle knows the label of each.

    Raises:
        NoExamples: the store is empty.
        DataError: a label that is not among `labels`.
    """
    counts = store.labels()
    if not counts:
        raise NoExamples("this device holds no examples", expected="at least one labelled text")
    strange = sorted(counts.keys() - set(labels))
    if strange:
        raise DataError(
            "examples carry labels that the bundle does not know",
            got=strange[:5],
            expected=f"labels of {[*labels]}",
        )


def draw_batches(
    store: ExampleStore,
    encoder: TextEncoder,
    labels: Sequence[str],
    *,
    batch_size: int,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Endless batches of `batch_size` examples, or of all of them where there are fewer.

    The order is one shuffle after another, so that each example comes once before any comes twice. Labels are
    (batch,) int64, positions in `labels`. Texts are read batch by batch: memory does not grow with the store.

    Raises:
        NoExamples: the store is empty, or was emptied meanwhile.
    """
    index = {label: position for position, label in enumerate(labels)}
    ids = np.array(store.ids(), dtype=np.int64)
    size = min(batch_size, len(ids))
    order = ids[:0]
    while True:
        if len(order) < size:
            order = np.concatenate([order, rng.permutation(ids)])
        chosen, order = order[:size], order[size:]
        examples = store.get(chosen.tolist())
        if not examples:
            raise NoExamples("the examples were deleted", expected="at least one labelled text")
        yield _batch(examples, encoder, index)


def _batch(examples: Sequence[Example], encoder: TextEncoder, index: dict[str, int]) -> Batch:
    arrays = encoder.encode([example.text for example in examples])
    try:
        labels = [index[example.label] for example in examples]
    except KeyError as error:  # replaced by the app since check_labels
        raise DataError("an example carries a label that the bundle does not know") from error
    arrays[LABELS] = np.array(labels, dtype=np.int64)
    return arrays
