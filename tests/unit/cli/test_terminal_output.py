"""What devices and services say reaches a terminal as text, not as commands to it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hetlora.cli.output import plain, print_items, say
from hetlora.messages.management import BundlePublish


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
    print_items([BundlePublish(digest="0" * 64)], ["digest"], as_json=True, title="Populations")

    assert capsys.readouterr().out == '{"items": [{"digest": "' + "0" * 64 + '"}]}\n'


def _run(shell: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hetlora.cli", "export", "--list-models", "--json"]
    return subprocess.run(
        ["sh", "-c", f'"$@" {shell}', "sh", *command], capture_output=True, text=True, check=False
    )


def test_output_that_takes_no_more_is_told_without_a_traceback() -> None:
    done = _run(">/dev/full")

    assert done.returncode == 1
    assert "standard output cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_output_is_no_fault() -> None:
    done = _run(">&-")

    assert (done.returncode, done.stderr) == (0, "")
