from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_sdk.examples import ChatExample, Example
from edge_sdk.examples.example_files import read_examples
from hetlora.errors import DataError

CHAT = {"messages": [{"role": "user", "content": "how"}, {"role": "assistant", "content": "well"}], "id": 7}


def _file(folder: Path, *lines: object) -> Path:
    path = folder / "chats.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_chats_are_read_line_by_line(tmp_path: Path) -> None:
    two = {"messages": [*CHAT["messages"], {"role": "user", "content": "and?"}]}  # type: ignore[misc]
    assert read_examples(_file(tmp_path, CHAT, "", two)) == [
        ChatExample.of([("user", "how"), ("assistant", "well")]),
        ChatExample.of([("user", "how"), ("assistant", "well"), ("user", "and?")]),
    ]


def test_labelled_text_is_read_as_before(tmp_path: Path) -> None:
    assert read_examples(_file(tmp_path, ["snow", "cold"])) == [Example("snow", "cold")]
    (tmp_path / "texts.csv").write_text("text,label\nsnow,cold\n")
    assert read_examples(tmp_path / "texts.csv") == [Example("snow", "cold")]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("secret", "line 2 of .* is not JSON"),
        (["secret", "x"], "line 2 of .* is no chat; got list"),
        ({"messages": "secret"}, "line 2 of .* is no chat; got dict"),
        (
            {"messages": [{"role": "user", "content": "secret"}]},
            "line 2 of .*: a chat without a turn to learn",
        ),
        ({"messages": [{"role": "secret", "content": "x"}]}, "line 2 of .*: role of a turn"),
        ({"messages": ["secret"]}, "line 2 of .*: a turn of a chat; got str"),
        (
            {"messages": [{"role": "assistant", "content": 5}]},
            "line 2 of .*: content of a turn is empty or no text",
        ),
    ],
)
def test_line_that_is_no_chat_is_named_and_not_quoted(tmp_path: Path, line: object, fault: str) -> None:
    with pytest.raises(DataError, match=fault) as caught:
        read_examples(_file(tmp_path, CHAT, line))
    assert "secret" not in str(caught.value)


def test_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(json.dumps(CHAT).encode() + b"\xff")
    with pytest.raises(DataError, match="is not text"):
        read_examples(path)
