"""The number that a command ends with: every one of the table, by a real command, and none by a traceback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
from service_operator import TOKEN, Operator

from hetlora.cli.exit_codes import EXIT_CODES
from hetlora.errors import error_classes

ROOT = Path(__file__).parents[3]
Ended = tuple[int, str]


@pytest.fixture
def stage(sqlite_stage: Any) -> Any:
    """Of one database: what differs between two is behind the service."""
    return sqlite_stage


@pytest.fixture
def full() -> Iterator[IO[str]]:
    """A disk without room."""
    with open("/dev/full", "w") as file:
        yield file


def started(
    http: httpx.Client, *arguments: str, token: str = TOKEN, stdout: IO[str] | int = subprocess.PIPE
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hetlora.cli", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"HETLORA_URL": str(http.base_url), "HETLORA_OPERATOR_TOKEN": token},
    )


def ended(process: subprocess.Popen[str]) -> Ended:
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def interrupted(http: httpx.Client, run_id: str, number: signal.Signals) -> Ended:
    """What becomes of a watcher that is asked to end once it looks on."""
    process = started(http, "run", "watch", run_id, "--json")
    assert process.stdout is not None
    assert process.stdout.readline(), "the first round is told"
    process.send_signal(number)
    return ended(process)


def test_documented_codes_are_those_of_the_table_and_no_error_has_another() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)

    assert {int(code): words for code, words in rows} == EXIT_CODES
    assert {kind.exit_code for kind in error_classes().values()} <= set(EXIT_CODES)


@pytest.mark.slow
def test_each_code_is_some_commands_and_comes_with_words_instead_of_a_traceback(
    http: httpx.Client, operator: Operator, bundle: str, tmp_path: Path, full: IO[str]
) -> None:
    run_id = operator.run(bundle)
    bad = tmp_path / "bad.toml"
    bad.write_text("name = ")
    absent, nobody = str(tmp_path / "absent"), "http://127.0.0.1:9"
    cases: list[tuple[int, str, Callable[[], Ended]]] = [
        (0, "", lambda: ended(started(http, "run", "show", run_id))),
        (1, "cannot be written", lambda: ended(started(http, "run", "list", "--json", stdout=full))),
        (2, "No such command", lambda: ended(started(http, "run", "nonsense"))),
        (2, "Invalid value for '--state'", lambda: ended(started(http, "run", "list", "--state", "odd"))),
        (3, "settings_invalid", lambda: ended(started(http, "run", "check", str(bad)))),
        (3, "settings_invalid", lambda: ended(started(http, "run", "check", absent))),
        (4, "authentication_failed", lambda: ended(started(http, "run", "list", token="x" * 32))),
        (4, "not_found", lambda: ended(started(http, "run", "show", "none"))),
        (5, "service_unreachable", lambda: ended(started(http, "run", "list", "--url", nobody))),
        (130, "", lambda: interrupted(http, run_id, signal.SIGINT)),
        (143, "", lambda: interrupted(http, run_id, signal.SIGTERM)),
    ]
    for code, words, run in cases:
        got, told = run()
        assert (got, "Traceback" in told) == (code, False), told
        assert words in told
    assert {code for code, _, _ in cases} == set(EXIT_CODES)
