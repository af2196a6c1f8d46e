"""Text to token numbers with the tokenizer of a bundle, and back."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, DataError
from hetlora.fixed_sizes import ANY_SIZES, FixedSizes, fixed_sizes
from hetlora.graph_names import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from hetlora.manifest import TensorInput

_INPUTS = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
# The padding token of a tokenizer that names none; what stands there is masked.
_PADDING_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")


class TextEncoder:
    """Texts to the arrays that the graphs of one bundle take, always padded on the right.

    Graphs of fixed sizes take no others: rows are padded to their tokens, and where rows are left over, the
    first text stands in them again, which every model can read. What they answer there is to be ignored.

    Args:
        tokenizer_file: tokenizer.json of the bundle.
        inputs: what the manifest says the graphs take.
        max_tokens: longer texts are cut here.
        eos_token_ids: what ends a text that is learned or generated; the first of them is learned.
        sizes: what the graphs take, where they leave no choice.

    Raises:
        BundleInvalid: a tokenizer that cannot be read, or an input that text cannot fill.
    """

    def __init__(
        self,
        tokenizer_file: Path,
        inputs: Sequence[TensorInput],
        *,
        max_tokens: int,
        eos_token_ids: Sequence[int] = (),
        sizes: FixedSizes = ANY_SIZES,
    ) -> None:
        strange = [field.name for field in inputs if field.name not in _INPUTS or field.dtype != "int64"]
        if strange:
            raise BundleInvalid("inputs that text cannot fill", got=strange, expected=f"int64 {[*_INPUTS]}")
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the Rust library raises nothing narrower
            raise BundleInvalid(f"{tokenizer_file.name} is no tokenizer", got=error) from error
        self._names = [field.name for field in inputs]
        self.max_tokens, self.eos_token_ids, self.sizes = max_tokens, tuple(eos_token_ids), sizes
        self._pad_id, self._pad_type_id = _padding_of(self._tokenizer)
        # Cut and padded here: the library's own way needs a second tokenizer for whole texts, which takes a
        # large vocabulary's seconds and memory twice.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def cut_to(self, max_tokens: int) -> TextEncoder:
        """The same, with the same tokenizer, for texts of at most so many tokens."""
        shorter = copy(self)
        shorter.max_tokens = min(max_tokens, self.max_tokens)
        return shorter

    def encode(self, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Arrays (texts, tokens) int64 by input name, padded to the longest of these, or to fixed sizes."""
        rows = [self.framed(text) for text in texts]
        return self.arrays([ids for ids, _ in rows], [type_ids for _, type_ids in rows])

    def framed(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens of one text and their types, with the special ones around it, cut to fit."""
        room = max(self.max_tokens - self._tokenizer.num_special_tokens_to_add(is_pair=False), 0)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        encoding.truncate(room)
        framed = self._tokenizer.post_process(encoding)
        return list(framed.ids), list(framed.type_ids)

    def ids(self, text: str, *, special_tokens: bool = False, ends: bool = False) -> list[int]:
        """The tokens of a whole text, with the tokenizer's special ones around it or the end's after it."""
        ids = [int(number) for number in self._tokenizer.encode(text, add_special_tokens=special_tokens).ids]
        return ids + list(self.eos_token_ids[:1]) if ends else ids

    def prompt_ids(self, text: str, *, room: int | None = None) -> list[int]:
        """The tokens of a text that is to be gone on with: special ones before it and none after.

        To fit in `room` tokens the text loses its beginning, but never what the tokenizer puts before it:
        models are lost without the token that every text they ever saw began with.
        """
        before, placed = self.placed_ids(text)
        own = [number for number, _, _ in placed]
        excess = 0 if room is None else max(len(before) + len(own) - room, 0)
        return (before + own[excess:])[:room]

    def placed_ids(self, text: str) -> tuple[list[int], list[tuple[int, int, int]]]:
        """What the tokenizer puts before a text, and its own tokens, each from and to which character."""
        encoding = self._tokenizer.encode(text)
        marked = list(zip(encoding.ids, encoding.special_tokens_mask, encoding.offsets, strict=True))
        before = [int(number) for number, _, _ in takewhile(lambda token: token[1], marked)]
        return before, [
            (int(number), int(begin), int(end)) for number, special, (begin, end) in marked if not special
        ]

    def is_token(self, text: str) -> bool:
        """Whether a text is one token, as it stands."""
        return self._tokenizer.token_to_id(text) is not None

    def arrays(
        self, rows: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]] | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """Rows of token numbers, and types that are 0 where none are given, as `encode` would answer them."""
        if not rows:
            raise DataError("a batch holds no text", expected="at least one")
        type_ids = type_ids or [[0] * len(row) for row in rows]
        left_over = max((self.sizes.rows or 0) - len(rows), 0)
        rows, type_ids = [*rows, *[rows[0]] * left_over], [*type_ids, *[type_ids[0]] * left_over]
        arrays = {
            INPUT_IDS: padded(rows, self._pad_id, self.sizes),
            ATTENTION_MASK: padded([[1] * len(row) for row in rows], 0, self.sizes),
            TOKEN_TYPE_IDS: padded(type_ids, self._pad_type_id, self.sizes),
        }
        return {name: arrays[name] for name in self._names}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token numbers, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def text_encoder(bundle: Bundle, *, max_tokens: int | None = None) -> TextEncoder:
    """The encoder of a bundle's texts, for up to `max_tokens` where that is less than the bundle takes.

    Raises:
        BundleInvalid: as `TextEncoder` and `fixed_sizes`, or a bundle whose model reads no text.
    """
    manifest, sizes = bundle.manifest, fixed_sizes(bundle.manifest)
    if manifest.graphs.tokenizer is None:
        raise BundleInvalid("the bundle has no tokenizer", got=manifest.task, expected="a bundle for text")
    return TextEncoder(
        bundle.path(manifest.graphs.tokenizer),
        manifest.inputs,
        max_tokens=min(max_tokens or manifest.max_tokens, sizes.tokens or manifest.max_tokens),
        eos_token_ids=manifest.generation.eos_token_ids if manifest.generation is not None else (),
        sizes=sizes,
    )


def padded(rows: Sequence[Sequence[int]], filler: int, sizes: FixedSizes) -> NDArray[np.int64]:
    """Rows as an array (rows, longest row) int64, or of fixed sizes; `filler` stands where there is none."""
    height, width = max(len(rows), sizes.rows or 0), max(sizes.tokens or 0, *map(len, rows))
    array = np.full((height, width), filler, dtype=np.int64)
    for place, row in enumerate(rows):
        array[place, : len(row)] = row
    return array


def _padding_of(tokenizer: Tokenizer) -> tuple[int, int]:
    """The number and the type of its padding token."""
    given = tokenizer.padding or {}
    known = (number for token in _PADDING_TOKENS if (number := tokenizer.token_to_id(token)) is not None)
    return given.get("pad_id", next(known, 0)), given.get("pad_type_id", 0)
