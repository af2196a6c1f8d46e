"""Whatever pages say to type is there: commands, and options that they have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_command_help import COMMANDS, options

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]
GROUPS = {name.rsplit(" ", count)[0] for name in COMMANDS for count in range(1, name.count(" ") + 1)}


def typed(page: Path) -> list[str]:
    """What comes after `hetlora`, in the text and in blocks of their own."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    inline = [" ".join(own.split()) for own in re.findall(r"`hetlora ([^`]*)`", prose)]
    return [*inline, *(part for line in lines for part in re.findall(r"^hetlora ([^#|&>]*)", line))]


def spelled_out(line: str) -> list[str]:
    """`adapter show|use` is two commands."""
    words = line.split()
    either = (at for at, word in enumerate(words[:3]) if re.fullmatch(r"[a-z-]+(\|[a-z-]+)+", word))
    place = next(either, None)
    if place is None:
        return [line]
    return [" ".join((*words[:place], own, *words[place + 1 :])) for own in words[place].split("|")]


def fault_of(line: str) -> str | None:
    """What is wrong with a line, if anything."""
    words = line.split()
    if words[0] == "COMMAND" or words[0].startswith("--"):
        return None
    names = [" ".join(words[:count]) for count in (3, 2, 1)]
    command = next((name for name in names if name in COMMANDS), None)
    if command == "bench":  # whose options are its programs' own
        return None
    if command is None:
        return None if line in GROUPS else "no such command"
    named = set(re.findall(r"(?:^|\s|\[)(--[a-z][a-z-]*)", line)) - {"--help"}
    lacking = named - options(COMMANDS[command])
    return f"no such option: {', '.join(sorted(lacking))}" if lacking else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_are_there_with_their_options(page: Path) -> None:
    lines = [own for line in typed(page) for own in spelled_out(line)]
    assert {line: fault for line in lines if (fault := fault_of(line)) is not None} == {}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("run list --state running", None),
        ("run list --colour red", "no such option: --colour"),
        ("run dance RUN", "no such command"),
        ("rollout", None),
    ],
)
def test_fault_of_a_line_is_found(line: str, fault: str | None) -> None:
    assert fault_of(line) == fault
