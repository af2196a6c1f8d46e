"""Examples as batches. Vocabulary: [PAD] 0, [UNK] 1, snow 2, ice 3, sun 4, sand 5, and 6."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_bundle import tiny_tokenizer

from edge_sdk.batching.collation import TextCollation
from edge_sdk.batching.tokens import TextEncoder
from edge_sdk.examples import Example
from hetlora.errors import DataError
from hetlora.manifest import TensorInput

END = 7


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoder:
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    inputs = [
        TensorInput(name=name, dtype="int64", shape=("batch", "tokens"))
        for name in ("input_ids", "attention_mask")
    ]
    return TextEncoder(tmp_path / "tokenizer.json", inputs, max_tokens=4, eos_token_ids=(END,))


def test_class_is_learned_by_its_place(encoder: TextEncoder) -> None:
    collate = TextCollation("text-classification", ["cold", "warm"], encoder)
    batch = collate([Example("sun", "warm"), Example("snow ice", "cold")])
    assert batch["input_ids"].tolist() == [[4, 0], [2, 3]]
    assert batch["labels"].tolist() == [1, 0]


def test_unknown_class_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(DataError, match="does not know"):
        TextCollation("text-classification", ["cold"], encoder)([Example("sun", "warm")])


def test_continuation_alone_is_learned_and_padding_is_not(encoder: TextEncoder) -> None:
    collate = TextCollation("text-generation", [], encoder)
    batch = collate([Example("sun and", "sand"), Example("ice", "snow")])
    # sun and sand END; ice snow END and one place of padding
    assert batch["input_ids"].tolist() == [[4, 6, 5, END], [3, 2, END, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 5, END], [-100, 2, END, -100]]


def test_text_that_does_not_fit_loses_its_beginning_before_the_continuation_loses_its_end(
    encoder: TextEncoder,
) -> None:
    collate = TextCollation("text-generation", [], encoder)
    # Room for four: two of continuation and END leave one of the text; of five and END three stay.
    assert collate([Example("sun and ice", "snow sand")])["input_ids"].tolist() == [[3, 2, 5, END]]
    assert collate([Example("sun ice", "snow sand and ice sun")])["labels"].tolist() == [[-100, 2, 5, 6]]


def test_answer_stands_apart_from_its_text(encoder: TextEncoder) -> None:
    batch = TextCollation("text2text-generation", [], encoder)(
        [Example("sun", "sand and"), Example("ice", "snow")]
    )
    assert batch["input_ids"].tolist() == [[4], [3]]
    assert batch["labels"].tolist() == [[5, 6, END], [2, END, -100]]
