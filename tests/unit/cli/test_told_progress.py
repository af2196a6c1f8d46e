"""Long work says how far it has come on a terminal, and nowhere else."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hetlora.cli.progress import EVERY_ITEMS, work


def terminal(is_one: bool = True) -> tuple[Console, io.StringIO]:
    drawn = io.StringIO()
    return Console(file=drawn, force_terminal=is_one, width=80, color_system=None), drawn


def test_terminal_is_told_what_goes_over_the_line() -> None:
    console, drawn = terminal()
    with work("Publishing", as_json=False, console=console) as told:
        told.at("Publishing base.bin")
        told.moved(3_000_000, 12_000_000)
    assert "Publishing base.bin" in drawn.getvalue()
    assert "3.0/12.0 MB" in drawn.getvalue()


@pytest.mark.parametrize(("as_json", "is_terminal"), [(True, True), (False, False), (True, False)])
def test_machines_pipes_and_logs_are_told_nothing(as_json: bool, is_terminal: bool) -> None:
    console, drawn = terminal(is_terminal)
    with work("Publishing", as_json=as_json, console=console) as told:
        told.at("Publishing base.bin")
        told.moved(1, 2)
        assert list(told.counted(range(3), "files")) == [0, 1, 2]
    assert drawn.getvalue() == ""


def test_items_are_counted_as_they_are_taken() -> None:
    console, drawn = terminal()
    with work("Reading figures", as_json=False, console=console) as told:
        assert len(list(told.counted(range(2 * EVERY_ITEMS + 1), "rounds"))) == 2 * EVERY_ITEMS + 1
    assert "Reading figures: 200 rounds" in drawn.getvalue()


def test_file_name_cannot_steer_the_terminal() -> None:
    console, drawn = terminal()
    with work("Publishing", as_json=False, console=console) as told:
        told.at("\x1b]0;owned\x07[bold]")
    assert "\x1b]0;" not in drawn.getvalue()
    assert "[bold]" in drawn.getvalue()
