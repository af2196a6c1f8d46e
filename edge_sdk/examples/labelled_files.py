"""Readers of the user's own files of labelled text.

- `.csv` (RFC 4180, UTF-8): the columns `text`, and `label`, `category` or `intent`; others are left out.
- `.json`: a list of [text, label] or of objects with those fields; or an object of such lists `train` and
  `test` (or else `val`), whose other keys are left out.
- `.jsonl`: one [text, label] or object per line.

Text and label lose the white space around them. A language model that is to go on with a space is taught by
`ExampleStore.put`, which keeps it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge_sdk.examples import Example
from hetlora.errors import DataError

LABEL_FIELDS: Final = ("label", "category", "intent")

Parts = dict[str, list[Example]]


def read_parts(path: Path) -> Parts:
    """The examples of a file, read as its suffix says: `train`, and `test` where the file has such a part.

    Raises:
        OSError: no such file, or it cannot be read.
        DataError: bytes or a layout of another kind, or a row without text or label.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text", got=error.reason, expected="UTF-8") from error
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"kind of {path}", got=path.suffix or "no suffix", expected=" or ".join(READERS))
    if "\0" in content:
        raise DataError(f"{path} is not text", got="NUL characters", expected="UTF-8")
    if not content.strip():
        raise DataError(f"{path} is empty", expected="labelled text")
    return reader(content, str(path))


def _read_csv(content: str, name: str) -> Parts:
    rows = csv.reader(io.StringIO(content, newline=""), strict=True)
    examples = []
    try:
        header = [column.strip().casefold() for column in next(rows)]
        label = next((field for field in LABEL_FIELDS if field in header), None)
        if "text" not in header or label is None:
            raise DataError(
                f"columns of {name}",
                got=", ".join(header)[:200],
                expected=f"text and one of {', '.join(LABEL_FIELDS)}, separated by commas",
            )
        line = rows.line_num + 1
        for row in rows:
            place = f"line {line} of {name}"
            # A text may hold newlines, so a row begins where the one before it ended.
            line = rows.line_num + 1
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(place, got=f"{len(row)} fields", expected=f"{len(header)} as in the header")
            fields = dict(zip(header, row, strict=True))
            examples.append(_example(fields["text"], fields[label], place))
    except csv.Error as error:
        raise DataError(
            f"line {rows.line_num} of {name} is not CSV", got=error, expected="quoting as in RFC 4180"
        ) from error
    return {"train": examples}


def _read_json(content: str, name: str) -> Parts:
    found = _parse(content, name)
    if isinstance(found, list):
        return {"train": _json_examples(found, name)}
    lists = {
        part: found[part]
        for part in ("train", "test", "val")
        if isinstance(found, dict) and isinstance(found.get(part), list)
    }
    if "train" not in lists:
        raise DataError(
            f"layout of {name}",
            got=f"an object with {', '.join(found)[:200]}"
            if isinstance(found, dict)
            else type(found).__name__,
            expected="a list of examples, or an object with the lists train and test",
        )
    test = lists.get("test", lists.get("val", []))
    return {
        "train": _json_examples(lists["train"], f"train of {name}"),
        "test": _json_examples(test, f"test of {name}"),
    }


def _read_json_lines(content: str, name: str) -> Parts:
    examples = []
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            place = f"line {number} of {name}"
            examples.append(_json_example(_parse(line, place), place))
    return {"train": examples}


def _parse(content: str, name: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON", got=error, expected="RFC 8259") from error


def _json_examples(items: list[Any], name: str) -> list[Example]:
    return [_json_example(item, f"example {number} of {name}") for number, item in enumerate(items, start=1)]


def _json_example(item: Any, place: str) -> Example:
    if isinstance(item, list) and len(item) == 2:
        return _example(item[0], item[1], place)
    if isinstance(item, dict):
        label = next((item[field] for field in LABEL_FIELDS if field in item), None)
        return _example(item.get("text"), label, place)
    raise DataError(
        place, got=type(item).__name__, expected="[text, label], or an object with the fields text and label"
    )


def _example(text: object, label: object, place: str) -> Example:
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    for what, value in (("text", text), ("label", label)):
        if not isinstance(value, str) or not value.strip():
            got = "an empty one" if isinstance(value, str) else type(value).__name__
            raise DataError(f"{place} has no {what}", got=got, expected=f"a {what}")
    return Example(str(text).strip(), str(label).strip())


READERS: Final[dict[str, Callable[[str, str], Parts]]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
}
