"""Tables of rules, server optimizers and defences, with their constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from hetlora.cli.output import print_items
from hetlora.cli.rule_options import ChoiceHelp, Role
from hetlora.messages.common import Message

TITLES: Final[dict[Role, str]] = {
    "rule": "Rules: --rule NAME --rule-option OPTION=VALUE",
    "server_optimizer": "Server optimizers: --server-optimizer NAME --optimizer-option OPTION=VALUE",
    "defence": "Defences: --defence NAME --clip --defence-option OPTION=VALUE",
}


class Row(Message):
    """A name with its meaning, or below it one of its options."""

    name: str = ""
    option: str = ""
    default: str = ""
    range: str = ""
    meaning: str


def print_tables(choices: Iterable[ChoiceHelp]) -> None:
    """Print one table each of rules, server optimizers and defences."""
    choices = list(choices)
    for role, title in TITLES.items():
        rows = [row for choice in choices if choice.role == role for row in _rows(choice)]
        print_items(rows, list(Row.model_fields), as_json=False, title=title)


def _rows(choice: ChoiceHelp) -> Iterator[Row]:
    yield Row(name=choice.name, meaning=choice.meaning)
    for own in choice.options:
        example = "" if own.example is None else f", such as {own.name}={own.example}"
        yield Row(
            option=own.name, default=own.default_in_words, range=own.range, meaning=own.meaning + example
        )
