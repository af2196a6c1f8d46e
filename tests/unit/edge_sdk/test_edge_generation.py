"""Generation over a model that counts: after token n comes n + 1, so that [END] 7 comes after `and` 6.

Vocabulary: [PAD] 0, [UNK] 1, snow 2, ice 3, sun 4, sand 5, and 6, [END] 7; texts have up to 16 tokens.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_bundle import WORDS, adapter_of, bundle_on_disk, tiny_tokenizer
from numpy.typing import NDArray
from tokenizers.processors import TemplateProcessing

from edge_sdk.adapters.generation import Generated, TextGenerator
from edge_sdk.runtimes.base import Batch
from hetlora.adapter import Adapter
from hetlora.errors import BundleInvalid, DataError
from hetlora.manifest import Task

MAX_TOKENS = 16


class Counting:
    """Finds `step` after the last token read; keeps what it was given."""

    def __init__(self, step: int = 1) -> None:
        self.step = step
        self.batches: list[Batch] = []
        self.adapters: list[Adapter | None] = []

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        self.batches.append(batch)
        self.adapters.append(adapter)
        read = batch.get("decoder_input_ids", batch["input_ids"])
        return np.eye(len(WORDS), dtype=np.float32)[(read + self.step) % len(WORDS)]


def _generator(folder: Path, model: Counting, task: Task = "text-generation") -> TextGenerator:
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[UNK] $A [END]", special_tokens=[("[UNK]", 1), ("[END]", 7)]
    )
    return TextGenerator(bundle_on_disk(folder, task, tokenizer), model)


def test_text_goes_on_until_its_end(tmp_path: Path) -> None:
    model = Counting()
    answer = _generator(tmp_path, model).generate("snow ice")
    assert answer == Generated("sun sand and", (4, 5, 6))
    # What the tokenizer puts before a text is read, and the end that it puts after is not.
    assert [batch["input_ids"].tolist() for batch in model.batches] == [
        [[1, 2, 3]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5]],
        [[1, 2, 3, 4, 5, 6]],
    ]
    assert model.batches[0]["attention_mask"].tolist() == [[1, 1, 1]]


def test_answer_begins_anew_and_its_prompt_is_read_with_its_end(tmp_path: Path) -> None:
    model = Counting(2)
    answer = _generator(tmp_path, model, "text2text-generation").generate("snow ice", max_new_tokens=2)
    assert answer.token_ids == (2, 4)  # from [PAD] 0, which begins every answer here
    assert {str(batch["input_ids"].tolist()) for batch in model.batches} == {"[[1, 2, 3, 7]]"}
    assert [batch["decoder_input_ids"].tolist() for batch in model.batches] == [[[0]], [[0, 2]]]


@pytest.mark.parametrize(("most", "expected"), [(0, ()), (1, (4,)), (2, (4, 5))])
def test_generation_stops_after_the_tokens_asked_for(
    tmp_path: Path, most: int, expected: tuple[int, ...]
) -> None:
    model = Counting()
    assert _generator(tmp_path, model).generate("ice", max_new_tokens=most).token_ids == expected
    assert len(model.batches) == most


def test_generation_stops_where_the_bundles_tokens_end(tmp_path: Path) -> None:
    model = Counting(0)  # ice, and never an end
    answer = _generator(tmp_path / "one", model).generate("ice", max_new_tokens=1000)
    assert answer.token_ids == (3,) * (MAX_TOKENS - 2)
    assert max(batch["input_ids"].shape[1] for batch in model.batches) == MAX_TOKENS - 1
    answering = _generator(tmp_path / "two", Counting(0), "text2text-generation")
    assert answering.generate("ice", max_new_tokens=1000).token_ids == (0,) * (MAX_TOKENS - 1)


def test_every_token_is_generated_under_the_adapter_given(tmp_path: Path) -> None:
    model, adapter = Counting(), adapter_of(2)
    generator = _generator(tmp_path, model)
    generator.generate("sand", adapter=adapter)
    generator.generate("and")
    assert model.adapters == [adapter, adapter, None]


@pytest.mark.parametrize(("task", "most"), [("text-generation", 15), ("text2text-generation", 16)])
def test_prompt_that_leaves_no_room_is_refused(tmp_path: Path, task: Task, most: int) -> None:
    special = 2 if task == "text2text-generation" else 1
    generator = _generator(tmp_path, Counting(), task)
    generator.generate("snow " * (most - special), max_new_tokens=1)
    with pytest.raises(DataError, match=f"tokens of a prompt; got {most + 1}; expected 1 to {most}"):
        generator.generate("snow " * (most - special + 1))


def test_bundle_that_generates_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid, match="generates no text; got text-classification"):
        _generator(tmp_path, Counting(), "text-classification")
