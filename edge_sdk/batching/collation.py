"""Examples to the arrays of one batch, by the task of the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edge_sdk.batching.chats import chat_format, rendered
from edge_sdk.batching.images import ImageScaler
from edge_sdk.batching.tokens import TextEncoder, padded
from edge_sdk.examples.kinds import KIND_OF, AnyExample, ChatExample, Example, ImageExample, Kind, TextExample
from edge_sdk.runtimes.base import Batch
from hetlora.errors import DataError
from hetlora.fixed_sizes import FixedSizes, fixed_sizes
from hetlora.graph_names import IGNORED_LABEL, LABELS, PIXEL_VALUES
from hetlora.manifest import Manifest, Task, has_decoder, takes_labels

# Whatever a store is read as, to a batch.
Collate = Callable[[Sequence[Any]], Batch]

# The kinds of examples that a task learns from.
KINDS: Final[Mapping[Task, tuple[Kind, ...]]] = {
    "text-classification": ("labelled_text",),
    "image-classification": ("image",),
    "text-generation": ("labelled_text", "chat", "text"),
    "text2text-generation": ("labelled_text",),
}


@dataclass(frozen=True, slots=True)
class TokenRow:
    """The tokens of one example before they are padded; `labels` are the places of a class, or tokens."""

    ids: list[int]
    type_ids: list[int]
    labels: list[int]

    @property
    def length(self) -> int:
        """How many tokens it takes of a batch: what is read, or what is learned of it."""
        return max(len(self.ids), len(self.labels))


class TextCollation:
    """How examples of text become a batch, each first a row of tokens that does not depend on the others.

    A classifier learns `label` as one of `labels`. A language model reads `text` and learns to go on with
    `label`, word for word: where a space stands between them, it must begin the label. Of a chat it learns
    what the assistant said, of plain text all. A model with a decoder of its own learns to answer `text` with
    `label`. What is generated is learned with the end after it.

    Graphs of a fixed number of rows get a smaller batch of text to be generated filled up with rows in which
    no label counts. The mean over classes has no such rows: there a batch is full, or refused.
    """

    def __init__(self, task: Task, labels: Sequence[str], encoder: TextEncoder) -> None:
        self._task, self._encoder = task, encoder
        self._index = {label: position for position, label in enumerate(labels)}

    def __call__(self, examples: Sequence[AnyExample]) -> Batch:
        """The batch of these examples."""
        return self.batch([self.row(example) for example in examples])

    def row(self, example: AnyExample) -> TokenRow:
        """The tokens of one example, cut to what a batch takes.

        Raises:
            DataError: an example of a kind, or with a label, that the task does not know.
        """
        match example:
            case Example() if takes_labels(self._task):
                return self._class(example)
            case Example() if has_decoder(self._task):
                return self._answer(example)
            case Example():
                return self._continuation(example)
            case ChatExample() if "chat" in KINDS[self._task]:
                return self._chat(example)
            case TextExample() if "text" in KINDS[self._task]:
                ids = self._encoder.ids(example.text, special_tokens=True, ends=True)
                return _learned(ids[: self._encoder.max_tokens], 0)
        raise _strange_kind(example, self._task)

    def batch(self, rows: Sequence[TokenRow]) -> Batch:
        """Rows as the arrays of the bundle's inputs, and their labels."""
        sizes = self._encoder.sizes
        arrays = self._encoder.arrays([row.ids for row in rows], [row.type_ids for row in rows])
        if not takes_labels(self._task):
            return {**arrays, LABELS: padded([row.labels for row in rows], IGNORED_LABEL, sizes)}
        _check_full(len(rows), sizes)
        return {**arrays, LABELS: np.array([row.labels[0] for row in rows], dtype=np.int64)}

    def _class(self, example: Example) -> TokenRow:
        ids, type_ids = self._encoder.framed(example.text)
        return TokenRow(ids, type_ids, [_place(self._index, example.label)])

    def _continuation(self, example: Example) -> TokenRow:
        """The continuation alone is learned; where both do not fit, the text loses its beginning first."""
        encoder = self._encoder
        continuation = encoder.ids(example.label, ends=True)[: encoder.max_tokens - 1]
        text = encoder.prompt_ids(example.text, room=encoder.max_tokens - len(continuation))
        return _learned(text + continuation, len(text))

    def _answer(self, example: Example) -> TokenRow:
        ids, type_ids = self._encoder.framed(example.text)
        answer = self._encoder.ids(example.label, ends=True)[: self._encoder.max_tokens]
        return TokenRow(ids, type_ids, answer)

    def _chat(self, example: ChatExample) -> TokenRow:
        """Where it does not fit, it loses its beginning, and the end of the last answer only after that."""
        encoder = self._encoder
        form = chat_format(encoder.is_token)
        chat = rendered(example.turns, form)
        before, placed = encoder.placed_ids(chat.text)
        tokens = [
            (number, number if chat.is_learned(begin, end) else IGNORED_LABEL)
            for number, begin, end in placed
        ]
        answer_begins = sum(end <= chat.learned[-1][0] for _, _, end in placed)
        if not form.marks:  # the marks of others end an answer by themselves
            tokens += [(number, number) for number in encoder.eos_token_ids[:1]]
        answer = tokens[answer_begins:][: encoder.max_tokens - 1]
        earlier = [*((number, IGNORED_LABEL) for number in before), *tokens[:answer_begins]]
        # As with a prompt: what the tokenizer puts before every text stays.
        room = encoder.max_tokens - len(answer)
        excess = max(len(earlier) - room, 0)
        kept = (earlier[: len(before)] + earlier[len(before) + excess :])[:room] + answer
        ids = [number for number, _ in kept]
        return TokenRow(ids, [0] * len(ids), [label for _, label in kept])


class ImageCollation:
    """How images become a batch; `label` is one of the bundle's."""

    def __init__(self, manifest: Manifest) -> None:
        self._scaler, self._sizes = ImageScaler(manifest), fixed_sizes(manifest)
        self._index = {label: position for position, label in enumerate(manifest.labels)}

    def __call__(self, examples: Sequence[AnyExample]) -> Batch:
        """The batch of these examples.

        Raises:
            DataError: an example that is no image, cannot be read, or has a label that is not known.
            DependencyMissing: see `edge_sdk.batching.images`.
        """
        _check_full(len(examples), self._sizes)
        images = [example for example in examples if isinstance(example, ImageExample)]
        for example in examples:
            if not isinstance(example, ImageExample):
                raise _strange_kind(example, "image-classification")
        return {
            PIXEL_VALUES: np.stack([self._scaler.pixel_values(image) for image in images]),
            LABELS: np.array([_place(self._index, image.label) for image in images], dtype=np.int64),
        }


def _learned(ids: list[int], begin: int) -> TokenRow:
    """A row of which all from `begin` on is learned."""
    return TokenRow(ids, [0] * len(ids), [IGNORED_LABEL] * begin + ids[begin:])


def _place(index: Mapping[str, int], label: str) -> int:
    if label not in index:  # replaced by the app since check_examples
        raise DataError("an example carries a label that the bundle does not know")
    return index[label]


def _check_full(count: int, sizes: FixedSizes) -> None:
    if count != (sizes.rows or count):
        raise DataError(
            "the bundle is stamped for another number of examples in a batch", got=count, expected=sizes.rows
        )


def _strange_kind(example: AnyExample, task: Task) -> DataError:
    return DataError(
        "an example of a kind that the task does not learn from",
        got=KIND_OF[type(example)],
        expected=f"{task} from {', '.join(KINDS[task])}",
    )
