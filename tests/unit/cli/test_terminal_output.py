"""What devices and services say reaches a terminal as text, not as commands to it."""

from __future__ import annotations

import pytest

from hetlora.cli.output import plain, print_items, say
from hetlora.messages.management import PopulationCreate


@pytest.mark.parametrize("hostile", ["[/x]", "[bold red]admin[/]", "\x1b]0;owned\x07", "a\r\nb", "\x1b[2J"])
def test_hostile_text_neither_styles_nor_steers(hostile: str) -> None:
    shown = plain(hostile)

    assert not shown.spans
    assert shown.plain.isprintable()


def test_markup_stays_as_it_was_written() -> None:
    assert plain("[bold red]admin[/]").plain == "[bold red]admin[/]"


def test_long_line_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    say("x" * 300)

    assert capsys.readouterr().out == "x" * 300 + "\n"


def test_listing_with_json_is_one_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_items([PopulationCreate(name="a")], ["name"], as_json=True, title="Populations")

    assert capsys.readouterr().out == '{"items": [{"name": "a"}]}\n'
