"""The user's own files of examples: labelled text, or chats as models are commonly tuned on them.

- `.csv`, `.json`, `.jsonl` of labelled text: see `edge_sdk.examples.labelled_files`.
- `.jsonl` of chats: each line an object whose `messages` is a list of {"role": ..., "content": ...}, with at
  least one of the role "assistant"; other fields of the object are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_sdk.examples import AnyExample, ChatExample
from edge_sdk.examples.labelled_files import read_parts
from hetlora.errors import DataError


def read_examples(path: Path) -> Sequence[AnyExample]:
    """The examples of a file that are to be trained on.

    Raises:
        OSError: no such file, or it cannot be read.
        DataError: bytes or a layout of another kind; the message names the line, and never quotes it.
    """
    if path.suffix.lower() == ".jsonl":
        lines = _lines(path)
        if lines and _is_chat(lines[0][1]):
            return [_chat(line, f"line {number} of {path}") for number, line in lines]
    return read_parts(path)["train"]


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file that hold something, each with its number; none of one that is no text."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:  # told by the reader of labelled text
        return []
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _is_chat(line: str) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "messages" in found


def _chat(line: str, place: str) -> ChatExample:
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON", expected="RFC 8259") from error
    messages = found.get("messages") if isinstance(found, dict) else None
    if not isinstance(messages, list):
        raise DataError(f"{place} is no chat", got=type(found).__name__, expected="an object with messages")
    try:
        return ChatExample.of(messages)
    except DataError as error:
        raise DataError(f"{place}: {error.what}", got=error.got, expected=error.expected) from error
