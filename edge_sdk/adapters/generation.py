"""Greedy text generation with a bundle's inference graph and an adapter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edge_sdk.batching.chats import chat_format, prompt_of
from edge_sdk.batching.tokens import text_encoder
from edge_sdk.examples.kinds import AnyTurn, as_turns
from edge_sdk.runtimes import open_model
from edge_sdk.runtimes.base import Batch, LogitsModel
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, DataError
from hetlora.graph_names import DECODER_INPUT_IDS, INPUT_IDS
from hetlora.manifest import GenerationInfo


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model made of a prompt; the token that ended it is left out."""

    text: str
    token_ids: tuple[int, ...]


class TextGenerator:
    """Goes on with a prompt, or answers it, one most likely token at a time.

    There is no cache of keys and values: each new token costs a pass over all that stands before it, which
    answers logits at every place (4 bytes times the vocabulary, each); a text of n tokens takes about n / 2
    passes over the whole of it. That is cheap beside training on such texts, and dear for long answers.

    Raises:
        BundleInvalid: the bundle generates no text.
        DependencyMissing: as `edge_sdk.runtimes.open_model`, which is asked if no `model` is given.
    """

    def __init__(
        self, bundle: Bundle, model: LogitsModel | None = None, *, threads: int | None = None
    ) -> None:
        manifest = bundle.manifest
        if manifest.generation is None:
            raise BundleInvalid(
                "the bundle generates no text", got=manifest.task, expected="a task that ends in generation"
            )
        self._info: GenerationInfo = manifest.generation
        self._model = model or open_model(bundle, threads=threads)
        self._encoder = text_encoder(bundle)

    def generate(self, prompt: str, *, max_new_tokens: int = 64, adapter: Adapter | None = None) -> Generated:
        """Generate until the text ends, or to `max_new_tokens`, or to the bundle's `max_tokens` in all.

        Raises:
            DataError: the prompt has no token, or leaves no room for another.
            SpecMismatch: the adapter is not of the bundle's specification.
        """
        read, beside = self._opening(prompt)
        return self._gone_on(read, beside, self._info.eos_token_ids, max_new_tokens, adapter)

    def answer(
        self, turns: Sequence[AnyTurn], *, max_new_tokens: int = 64, adapter: Adapter | None = None
    ) -> Generated:
        """Generate the next turn of a chat, written as `ChatExample`s are for training.

        A chat too long for the model loses its beginning, so that half of the room is left for the answer, or
        as much as `max_new_tokens` want.

        Raises:
            BundleInvalid: the model answers texts with a decoder of its own.
            DataError: no turn at all, or something that is none.
            SpecMismatch: as `generate`.
        """
        if self._info.decoder_start_token_id is not None:
            raise BundleInvalid("the bundle does not go on with chats", expected="the task text-generation")
        encoder = self._encoder
        form = chat_format(encoder.is_token)
        if not turns:
            raise DataError("a chat to be gone on with has no turn", expected="at least one")
        room = encoder.max_tokens - min(max_new_tokens, encoder.max_tokens // 2)
        read = encoder.prompt_ids(prompt_of(as_turns(turns), form), room=room)
        ends = (*self._info.eos_token_ids, *(encoder.ids(form.end) if form.marks else ()))
        return self._gone_on(read, {}, ends, max_new_tokens, adapter)

    def _gone_on(
        self,
        read: list[int],
        beside: Batch,
        ends: Collection[int],
        max_new_tokens: int,
        adapter: Adapter | None,
    ) -> Generated:
        new: list[int] = []
        while len(new) < max_new_tokens and len(read) < self._encoder.max_tokens:
            logits = self._model.logits(self._batch(read, beside), adapter=adapter)
            token = int(logits[0, len(read) - 1].argmax())  # graphs of fixed sizes read padding after it
            if token in ends:
                break
            new.append(token)
            read = [*read, token]
        return Generated(self._encoder.decode(new), tuple(new))

    def _opening(self, prompt: str) -> tuple[list[int], Batch]:
        """What is gone on with, and what an encoder of its own reads beside it."""
        encoder, start = self._encoder, self._info.decoder_start_token_id
        if start is None:
            ids, most = encoder.prompt_ids(prompt), encoder.max_tokens - 1
        else:
            ids, most = encoder.ids(prompt, special_tokens=True), encoder.max_tokens
        if not 1 <= len(ids) <= most:
            raise DataError("tokens of a prompt", got=len(ids), expected=f"1 to {most}")
        return (ids, {}) if start is None else ([start], encoder.arrays([ids]))

    def _batch(self, read: list[int], beside: Batch) -> Batch:
        arrays = self._encoder.arrays([read])
        return {**beside, DECODER_INPUT_IDS: arrays[INPUT_IDS]} if beside else arrays
