from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_bundle import tiny_tokenizer
from tokenizers.processors import TemplateProcessing

from edge_sdk.batching.tokens import TextEncoder
from hetlora.errors import BundleInvalid
from hetlora.manifest import TensorInput


def _input(name: str, dtype: str = "int64") -> TensorInput:
    return TensorInput.model_validate({"name": name, "dtype": dtype, "shape": ("batch", "tokens")})


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    tiny_tokenizer().save(str(path))
    return path


@pytest.fixture
def encoder(tokenizer_file: Path) -> TextEncoder:
    return TextEncoder(tokenizer_file, [_input("input_ids"), _input("attention_mask")], max_tokens=3)


def test_texts_are_padded_to_the_longest_of_the_batch(encoder: TextEncoder) -> None:
    # Vocabulary: [PAD] 0, [UNK] 1, snow 2, ice 3, sun 4, sand 5, and 6.
    arrays = encoder.encode(["snow", "sun sand"])
    assert arrays["input_ids"].tolist() == [[2, 0], [4, 5]]
    assert arrays["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int64)}


def test_long_text_is_cut_at_max_tokens(encoder: TextEncoder) -> None:
    assert encoder.encode(["sun and sand and snow"])["input_ids"].tolist() == [[4, 6, 5]]


def test_arrays_come_under_the_names_of_the_manifest(tokenizer_file: Path) -> None:
    names = ["token_type_ids", "input_ids"]
    encoder = TextEncoder(tokenizer_file, [_input(name) for name in names], max_tokens=3)
    arrays = encoder.encode(["ice"])
    assert list(arrays) == names
    assert arrays["token_type_ids"].tolist() == [[0]]


def test_padding_token_of_the_tokenizer_file_is_kept_and_stands_on_the_right(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.enable_padding(pad_id=6, pad_token="and", direction="left", length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder(tmp_path / "tokenizer.json", [_input("input_ids")], max_tokens=3)
    assert encoder.encode(["snow", "sun sand"])["input_ids"].tolist() == [[2, 6], [4, 5]]


def test_special_tokens_count_towards_max_tokens(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[UNK] $A [UNK]", special_tokens=[("[UNK]", 1)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder(tmp_path / "tokenizer.json", [_input("input_ids")], max_tokens=3)
    assert encoder.encode(["snow ice"])["input_ids"].tolist() == [[1, 2, 1]]


@pytest.mark.parametrize("field", [_input("pixel_values"), _input("input_ids", "float32")])
def test_input_that_text_cannot_fill_is_refused(tokenizer_file: Path, field: TensorInput) -> None:
    with pytest.raises(BundleInvalid, match=f"cannot fill; got \\['{field.name}'\\]"):
        TextEncoder(tokenizer_file, [field], max_tokens=3)


def test_damaged_tokenizer_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleInvalid, match=r"tokenizer\.json is no tokenizer"):
        TextEncoder(tmp_path / "tokenizer.json", [_input("input_ids")], max_tokens=3)


def test_whole_text_is_neither_cut_nor_padded(encoder: TextEncoder) -> None:
    assert encoder.ids("sun and sand and snow") == [4, 6, 5, 6, 2]


def test_text_that_ends_gets_the_first_end_token(tokenizer_file: Path) -> None:
    encoder = TextEncoder(tokenizer_file, [_input("input_ids")], max_tokens=3, eos_token_ids=(9, 8))
    assert encoder.ids("sun", ends=True) == [4, 9]


@pytest.fixture
def framing(tmp_path: Path) -> TextEncoder:
    """Puts [UNK] before and [PAD] after each text."""
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[UNK] $A [PAD]", special_tokens=[("[UNK]", 1), ("[PAD]", 0)]
    )
    tokenizer.save(str(tmp_path / "framing.json"))
    return TextEncoder(tmp_path / "framing.json", [_input("input_ids")], max_tokens=9)


def test_special_tokens_are_left_out_unless_asked_for(framing: TextEncoder) -> None:
    assert framing.ids("sun") == [4]
    assert framing.ids("sun", special_tokens=True) == [1, 4, 0]


def test_text_to_go_on_with_has_special_tokens_before_it_alone(framing: TextEncoder) -> None:
    assert framing.prompt_ids("sun and sand") == [1, 4, 6, 5]


@pytest.mark.parametrize(
    ("room", "expected"), [(5, [1, 4, 6, 5]), (4, [1, 4, 6, 5]), (3, [1, 6, 5]), (2, [1, 5]), (1, [1])]
)
def test_text_without_room_loses_its_beginning_but_not_what_the_tokenizer_puts_there(
    framing: TextEncoder, room: int, expected: list[int]
) -> None:
    assert framing.prompt_ids("sun and sand", room=room) == expected


def test_rows_of_tokens_become_arrays_padded_on_the_right(encoder: TextEncoder) -> None:
    arrays = encoder.arrays([[4], [5, 6]])
    assert arrays["input_ids"].tolist() == [[4, 0], [5, 6]]
    assert arrays["attention_mask"].tolist() == [[1, 0], [1, 1]]
