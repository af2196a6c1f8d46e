"""Chats as text, and as tokens. The formats are written down from the models' public chat templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fake_bundle import bundle_on_disk
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from edge_sdk.adapters.generation import TextGenerator
from edge_sdk.batching.chats import FORMATS, PLAIN, ChatFormat, chat_format, prompt_of, rendered
from edge_sdk.batching.collation import TextCollation
from edge_sdk.batching.tokens import TextEncoder
from edge_sdk.examples import ChatExample, ChatTurn, Example, ImageExample, TextExample
from edge_sdk.examples.kinds import as_turns
from edge_sdk.runtimes.base import Batch
from hetlora.adapter import Adapter
from hetlora.errors import BundleInvalid, DataError
from hetlora.manifest import TensorInput

TURNS = as_turns(
    [
        ("system", "be brief"),
        ("user", "hello"),
        ("assistant", "hi"),
        ("user", "how is it"),
        ("assistant", "ok"),
    ]
)
CHATML, LLAMA, GEMMA, PHI = FORMATS


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (
            CHATML,
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
            "<|im_start|>assistant\nhi<|im_end|>\n<|im_start|>user\nhow is it<|im_end|>\n"
            "<|im_start|>assistant\nok<|im_end|>",
        ),
        (
            LLAMA,
            "<|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nhi<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nhow is it<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nok<|eot_id|>",
        ),
        (
            GEMMA,
            "<start_of_turn>user\nbe brief\n\nhello<end_of_turn>\n<start_of_turn>model\nhi<end_of_turn>\n"
            "<start_of_turn>user\nhow is it<end_of_turn>\n<start_of_turn>model\nok<end_of_turn>",
        ),
        (
            PHI,
            "<|system|>\nbe brief<|end|>\n<|user|>\nhello<|end|>\n<|assistant|>\nhi<|end|>\n"
            "<|user|>\nhow is it<|end|>\n<|assistant|>\nok<|end|>",
        ),
        (PLAIN, "system:\nbe brief\nuser:\nhello\nassistant:\nhi\nuser:\nhow is it\nassistant:\nok\n"),
    ],
)
def test_chat_is_written_as_its_model_reads_it_and_answers_are_learned_to_their_ends(
    form: ChatFormat, text: str
) -> None:
    chat = rendered(TURNS, form)
    assert chat.text == text
    assert [chat.text[begin:end] for begin, end in chat.learned] == [f"hi{form.end}", f"ok{form.end}"]
    # What a model is asked with is what stands before the answer that it learned.
    assert prompt_of(TURNS[:-1], form) == text[: chat.learned[-1][0]]


def test_what_nobody_answered_is_left_out() -> None:
    asked = rendered([*TURNS, ChatTurn("user", "and you?")], CHATML)
    assert asked == rendered(TURNS, CHATML)


@pytest.mark.parametrize("form", [*FORMATS, PLAIN])
def test_format_is_that_of_the_tokenizer(form: ChatFormat) -> None:
    assert chat_format(lambda token: token in form.marks) is form


# Numbers by place: [PAD] 0, [UNK] 1, and so on; BOS stands before every text.
WORDS = (
    "[PAD]",
    "[UNK]",
    "[BOS]",
    "user",
    "assistant",
    "how",
    "are",
    "you",
    "rather",
    "well",
    "user:",
    "assistant:",
)
MARKS = ("<|im_start|>", "<|im_end|>")  # 12 and 13 where the tokenizer has them
END = 14


def _encoder(folder: Path, max_tokens: int, marks: Sequence[str] = MARKS) -> TextEncoder:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    tokenizer.post_processor = TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    inputs = [TensorInput(name="input_ids", dtype="int64", shape=("batch", "tokens"))]
    return TextEncoder(folder / "tokenizer.json", inputs, max_tokens=max_tokens, eos_token_ids=(END,))


CHAT = ChatExample(as_turns([("user", "how are you"), ("assistant", "rather well"), ("user", "how")]))
# BOS <|im_start|> user how are you <|im_end|> <|im_start|> assistant | rather well <|im_end|>
ASKED, ANSWER = [2, 12, 3, 5, 6, 7, 13, 12, 4], [8, 9, 13]


def test_answers_alone_are_learned_of_a_chat(tmp_path: Path) -> None:
    row = TextCollation("text-generation", [], _encoder(tmp_path, 20)).row(CHAT)
    assert row.ids == ASKED + ANSWER
    assert row.labels == [-100] * 9 + ANSWER


def test_earlier_answers_are_learned_too(tmp_path: Path) -> None:
    turns = [("assistant", "well"), ("user", "how"), ("assistant", "rather")]
    row = TextCollation("text-generation", [], _encoder(tmp_path, 20)).row(ChatExample(as_turns(turns)))
    assert row.ids == [2, 12, 4, 9, 13, 12, 3, 5, 13, 12, 4, 8, 13]
    assert row.labels == [-100, -100, -100, 9, 13, *[-100] * 6, 8, 13]


@pytest.mark.parametrize(
    ("max_tokens", "ids", "learned"),
    [
        (11, [2, 3, 5, 6, 7, 13, 12, 4, *ANSWER], 3),  # the beginning goes, and BOS stays
        (5, [2, 4, *ANSWER], 3),
        (4, [2, *ANSWER], 3),
        (3, [2, 8, 9], 2),  # only then the answer's end
        (2, [2, 8], 1),
        (1, [2], 0),
    ],
)
def test_chat_that_does_not_fit_loses_its_beginning_first(
    tmp_path: Path, max_tokens: int, ids: list[int], learned: int
) -> None:
    row = TextCollation("text-generation", [], _encoder(tmp_path, max_tokens)).row(CHAT)
    assert row.ids == ids
    assert row.labels == [-100] * (len(ids) - learned) + ids[len(ids) - learned :]


def test_model_without_marks_of_its_own_learns_plain_lines_and_their_end(tmp_path: Path) -> None:
    row = TextCollation("text-generation", [], _encoder(tmp_path, 20, marks=())).row(CHAT)
    # BOS user: how are you assistant: | rather well END
    assert row.ids == [2, 10, 5, 6, 7, 11, 8, 9, END]
    assert row.labels == [-100] * 6 + [8, 9, END]


def test_plain_text_is_learned_from_its_first_token_to_its_end(tmp_path: Path) -> None:
    collation = TextCollation("text-generation", [], _encoder(tmp_path, 5))
    batch = collation([TextExample("how are"), TextExample("how are you rather well")])
    assert batch["input_ids"].tolist() == [[2, 5, 6, END, 0], [2, 5, 6, 7, 8]]
    assert batch["labels"].tolist() == [[2, 5, 6, END, -100], [2, 5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("task", "example"),
    [
        ("text-classification", CHAT),
        ("text-classification", TextExample("how")),
        ("text2text-generation", CHAT),
        ("text2text-generation", TextExample("how")),
        ("text-generation", ImageExample(bytes(3), "x", shape=(1, 1, 3))),
    ],
)
def test_example_of_a_kind_that_the_task_does_not_learn_from_is_refused(
    tmp_path: Path, task: str, example: Example
) -> None:
    with pytest.raises(DataError, match="of a kind that the task does not learn from"):
        TextCollation(task, ["x", "y"], _encoder(tmp_path, 9)).row(example)  # type: ignore[arg-type]


class Following:
    """Finds one token after the other, whatever it has read; remembers that."""

    def __init__(self, *tokens: int) -> None:
        self.tokens, self.read = iter(tokens), []  # type: ignore[var-annotated]

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        self.read.append(batch["input_ids"][0].tolist())
        logits = np.zeros((*batch["input_ids"].shape, 20), np.float32)
        logits[..., next(self.tokens)] = 1
        return logits


def test_chat_is_gone_on_with_as_it_was_learned_until_the_turn_ends(tmp_path: Path) -> None:
    _encoder(tmp_path, 16)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    bundle = bundle_on_disk(tmp_path / "bundle", "text-generation", tokenizer)
    model = Following(8, 9, 13, 8)
    answer = TextGenerator(bundle, model).answer(CHAT.turns[:1], max_new_tokens=7)
    assert (answer.text, answer.token_ids) == ("rather well", (8, 9))
    assert model.read == [ASKED, [*ASKED, 8], [*ASKED, 8, 9]]


def test_chat_too_long_for_the_model_leaves_room_for_an_answer(tmp_path: Path) -> None:
    _encoder(tmp_path, 16)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    model = Following(*[8] * 20)
    generator = TextGenerator(bundle_on_disk(tmp_path / "b", "text-generation", tokenizer), model)
    long = as_turns([("user", "how are you " * 20)])
    assert generator.answer(long).token_ids == (8,) * 8
    assert model.read[0] == [2, 7, 5, 6, 7, 13, 12, 4]
    assert generator.answer(long, max_new_tokens=2).token_ids == (8, 8)
    assert len(model.read[8]) == 14


def test_nothing_to_go_on_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no turn"):
        TextGenerator(bundle_on_disk(tmp_path, "text-generation"), Following()).answer([])
    with pytest.raises(BundleInvalid, match="does not go on with chats"):
        TextGenerator(bundle_on_disk(tmp_path, "text2text-generation"), Following()).answer(TURNS)
