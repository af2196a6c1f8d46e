"""Completion by Tab, as shells ask for it: typer's protocol for each, and bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_clock import FakeClock
from service_operator import TOKEN, Operator

from hetlora.states import RunState

# As an installed command: completion goes by the name that was typed.
COMMAND = "import sys; sys.argv[0] = 'hetlora'; from hetlora.cli.main import run_command; run_command()"


@pytest.fixture
def stage(sqlite_stage: Any) -> Any:
    """Of one database: what differs between two is behind the service."""
    return sqlite_stage


def asked(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def in_bash(line: str, **environment: str) -> list[str]:
    """What bash would be told after the last word of a line."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return asked(_HETLORA_COMPLETE="complete_bash", **words, **environment).split()


def of_service(http: httpx.Client, token: str = TOKEN) -> dict[str, str]:
    return {"HETLORA_URL": str(http.base_url), "HETLORA_OPERATOR_TOKEN": token}


def test_commands_options_and_states_are_completed() -> None:
    assert in_bash("hetlora ro") == ["rollout"]
    assert in_bash("hetlora rollout pa") == ["pause"]
    assert in_bash("hetlora run list --st") == ["--state"]
    assert in_bash("hetlora run list --state ") == list(RunState)
    assert in_bash("hetlora key create alice --role v") == ["viewer"]
    assert in_bash("hetlora run create --rule rb") == ["rbla"]
    assert in_bash("hetlora alias set keyboard ca") == ["candidate"]


def test_zsh_and_fish_are_told_the_same_in_their_own_way() -> None:
    zsh = asked(_HETLORA_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="hetlora run wa")
    assert '"watch"' in zsh
    fish = asked(
        _HETLORA_COMPLETE="complete_fish",
        _TYPER_COMPLETE_ARGS="hetlora run wa",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert fish.startswith("watch")


def test_names_that_the_service_has_are_completed(
    http: httpx.Client, operator: Operator, clock: FakeClock, bundle: str
) -> None:
    older = operator.run(bundle, start=False)
    clock.advance(1)
    newer = operator.run(bundle, start=False)
    given = of_service(http)

    assert in_bash("hetlora run show ", **given) == [newer, older]
    assert in_bash(f"hetlora run show {older}", **given) == [older]
    assert in_bash("hetlora device list --population key", **given) == ["keyboard"]


@pytest.mark.parametrize(
    "given",
    [
        {"HETLORA_URL": "http://127.0.0.1:9", "HETLORA_OPERATOR_TOKEN": TOKEN},
        {"HETLORA_URL": "http://a\nb", "HETLORA_OPERATOR_TOKEN": TOKEN},
        {"HETLORA_OPERATOR_TOKEN": ""},
    ],
    ids=["nobody listens", "no address", "no token"],
)
def test_service_that_cannot_be_asked_completes_nothing_and_is_not_told(
    given: dict[str, str], tmp_path: Path
) -> None:
    assert in_bash("hetlora run show ", HETLORA_DATA_DIR=str(tmp_path), **given) == []


def test_wrong_key_completes_nothing(http: httpx.Client) -> None:
    assert in_bash("hetlora run show ", **of_service(http, token="x" * 32)) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="NO BASH: its own completion stays untested")
def test_bash_itself_completes_by_the_script_that_is_shown(tmp_path: Path) -> None:
    command = tmp_path / "hetlora"
    command.write_text(f"#!{sys.executable}\n{COMMAND}\n")
    command.chmod(0o755)
    script = asked(_HETLORA_COMPLETE="source_bash")
    line = "hetlora rollout roll"
    # What Tab does: readline finds the function by the command's name, and sets these before it calls it.
    pressed = f"""{script}
complete -p hetlora | grep -q -- '-F _hetlora_completion' || exit 9
COMP_WORDS=({line}) COMP_CWORD=2
_hetlora_completion hetlora
echo "${{COMPREPLY[@]}}"
"""
    path = os.pathsep.join((str(tmp_path), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "--norc", "-c", pressed],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PATH": path},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "roll-back\n", "")
