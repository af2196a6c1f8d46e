"""Text to token numbers with the tokenizer of a bundle, and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid
from hetlora.graph_names import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from hetlora.manifest import TensorInput

# Which field of an encoding fills which input.
_FIELDS = {INPUT_IDS: "ids", ATTENTION_MASK: "attention_mask", TOKEN_TYPE_IDS: "type_ids"}
# The padding token of a tokenizer that names none; what stands there is masked.
_PADDING_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")


class TextEncoder:
    """Texts to the arrays that the graphs of one bundle take, always padded on the right.

    Args:
        tokenizer_file: tokenizer.json of the bundle.
        inputs: what the manifest says the graphs take.
        max_tokens: longer texts are cut here.
        eos_token_ids: what ends a text that is learned or generated; the first of them is learned.

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
    ) -> None:
        strange = [field.name for field in inputs if field.name not in _FIELDS or field.dtype != "int64"]
        if strange:
            raise BundleInvalid("inputs that text cannot fill", got=strange, expected=f"int64 {[*_FIELDS]}")
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
            self._whole = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the Rust library raises nothing narrower
            raise BundleInvalid(f"{tokenizer_file.name} is no tokenizer", got=error) from error
        self._names = [field.name for field in inputs]
        self.max_tokens, self.eos_token_ids = max_tokens, tuple(eos_token_ids)
        _pad_to_longest(self._tokenizer)
        self._tokenizer.enable_truncation(max_length=max_tokens)
        self._whole.no_padding()
        self._whole.no_truncation()

    def encode(self, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Arrays of (texts, tokens) int64 by input name, padded to the longest of these texts."""
        encodings = self._tokenizer.encode_batch(list(texts))
        return {
            name: np.array([getattr(encoding, _FIELDS[name]) for encoding in encodings], dtype=np.int64)
            for name in self._names
        }

    def ids(self, text: str, *, special_tokens: bool = False, ends: bool = False) -> list[int]:
        """The tokens of a whole text, with the tokenizer's special ones around it or the end's after it."""
        ids = [int(number) for number in self._whole.encode(text, add_special_tokens=special_tokens).ids]
        return ids + list(self.eos_token_ids[:1]) if ends else ids

    def prompt_ids(self, text: str, *, room: int | None = None) -> list[int]:
        """The tokens of a text that is to be gone on with: special ones before it and none after.

        To fit in `room` tokens the text loses its beginning, but never what the tokenizer puts before it:
        models are lost without the token that every text they ever saw began with.
        """
        encoding = self._whole.encode(text)
        marked = list(zip(encoding.ids, encoding.special_tokens_mask, strict=True))
        before = [int(number) for number, special in takewhile(lambda pair: pair[1], marked)]
        own = [int(number) for number, special in marked if not special]
        excess = 0 if room is None else max(len(before) + len(own) - room, 0)
        return (before + own[excess:])[:room]

    def arrays(self, rows: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
        """Rows of token numbers as `encode` would answer them."""
        mask = np.arange(max(map(len, rows))) < np.array([len(row) for row in rows])[:, None]
        ids = np.full(mask.shape, self._tokenizer.padding["pad_id"], dtype=np.int64)
        ids[mask] = [number for row in rows for number in row]
        arrays = {INPUT_IDS: ids, ATTENTION_MASK: mask.astype(np.int64), TOKEN_TYPE_IDS: np.zeros_like(ids)}
        return {name: arrays[name] for name in self._names}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token numbers, without special tokens."""
        return str(self._whole.decode(list(ids), skip_special_tokens=True))


def text_encoder(bundle: Bundle, *, max_tokens: int | None = None) -> TextEncoder:
    """The encoder of a bundle's texts, for up to `max_tokens` where that is less than the bundle takes.

    Raises:
        BundleInvalid: as `TextEncoder`, or a bundle whose model reads no text.
    """
    manifest = bundle.manifest
    if manifest.graphs.tokenizer is None:
        raise BundleInvalid("the bundle has no tokenizer", got=manifest.task, expected="a bundle for text")
    return TextEncoder(
        bundle.path(manifest.graphs.tokenizer),
        manifest.inputs,
        max_tokens=min(max_tokens or manifest.max_tokens, manifest.max_tokens),
        eos_token_ids=manifest.generation.eos_token_ids if manifest.generation is not None else (),
    )


def _pad_to_longest(tokenizer: Tokenizer) -> None:
    given = tokenizer.padding or {}
    known = (token for token in _PADDING_TOKENS if tokenizer.token_to_id(token) is not None)
    token = given.get("pad_token") or next(known, None)
    tokenizer.enable_padding(
        direction="right",
        pad_id=given.get("pad_id", 0 if token is None else tokenizer.token_to_id(token)),
        pad_type_id=given.get("pad_type_id", 0),
        pad_token=token or "[PAD]",
    )
