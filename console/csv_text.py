"""Rows as lines of CSV; names are devices' own words, and a spreadsheet shall take none for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence


def csv_lines(names: Sequence[str], rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """A heading, and a line for each row, made as they are taken; what a row lacks is empty."""
    yield _line(names)
    for row in rows:
        yield _line([_harmless(_text(row.get(name))) for name in names])


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()
