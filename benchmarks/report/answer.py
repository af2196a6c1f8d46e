"""What a question's result files come to: a paragraph and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The figures of a question's files by part; the file without a part is under "".
Figures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Bars:
    """A picture of one figure for several things; a line stands at what is compared with, if anything."""

    labels: Sequence[str]
    values: Sequence[float]
    unit: str
    line: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A paragraph, bars to be drawn or the name of a picture that was, and maybe a table; all in Markdown."""

    paragraph: str
    picture: Bars | str
    table: str = ""


AnswerOf = Callable[[Figures], Answer]


def percent(share: float, digits: int = 0) -> str:
    """0.125 as "12.5 %" with one digit."""
    return f"{100 * share:.{digits}f} %"


def span(values: Sequence[float], digits: int = 2) -> str:
    """The least and the most of some values."""
    least, most = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return least if least == most else f"{least} to {most}"
