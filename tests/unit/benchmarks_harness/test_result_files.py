"""What benchmarks leave behind: each file tells what was run where, and each question has a toy run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.harness import RESULTS, begin, finish, questions
from benchmarks.result_file import parse_result, read_result
from benchmarks.toy import TOY, WITHOUT_RESULT, check, write_banking
from hetlora.errors import DataError, HetloraError

ROOT = Path(__file__).parents[3]
# Made before their changes were committed; each leaves this list when its question is run again.
DIRTY = {
    "chaos-postgresql-bucket",
    "chaos-sqlite",
    "chaos-sqlite-bucket",
    "console",
    "forecast",
    "install",
}
FILES = sorted(RESULTS.glob("*.json"))
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


def test_every_question_has_a_toy_run() -> None:
    assert questions().keys() == TOY.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_stored_result_tells_what_was_run_where(path: Path) -> None:
    result = read_result(path)

    assert path.stem.split("-")[0] == result.question
    assert result.figures
    # Of a board that installed the package the version says what was run.
    assert result.commit or result.versions["hetlora"]
    assert ("-dirty" in (result.commit or "")) == (path.stem in DIRTY)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_results_that_pages_name_are_there(page: Path) -> None:
    named = re.findall(r"results/([\w-]+\.(?:json|png|md))", page.read_text(encoding="utf-8"))

    assert [name for name in named if not (RESULTS / name).is_file()] == []


def test_what_a_benchmark_writes_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish("own", {"rows": [1]}, beginning=begin(), seed=3, results=tmp_path, arguments=["--rounds", "2"])

    told = parse_result(capsys.readouterr().out, "the last line")
    assert told == read_result(tmp_path / "own.json")
    assert (told.command, told.seed, told.figures) == ("hetlora bench own --rounds 2", 3, {"rows": [1]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": None}, "seed"),
        ({"machine": {}}, r"machine\.processor"),
        ({"command": "rm -r /"}, "command"),
        ({"figure": float("nan")}, "NaN is no figure"),
    ],
)
def test_what_is_no_result_is_refused(
    change: dict[str, object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish("own", {}, beginning=begin(), seed=3, results=tmp_path, arguments=[])
    stored = json.loads(capsys.readouterr().out)

    with pytest.raises(DataError, match=words):
        parse_result(json.dumps({**stored, **change}), "the last line")


def test_line_that_is_no_json_is_refused() -> None:
    with pytest.raises(DataError, match="no result"):
        parse_result("Traceback", "the last line")


def test_toy_run_of_a_question_that_is_not_there_fails_with_its_last_words(
    tmp_path: Path,
) -> None:
    with pytest.raises(HetloraError, match=r"exit code 3.*weather"):
        check("weather", (), tmp_path)


@pytest.mark.slow
def test_toy_run_leaves_a_result(tmp_path: Path) -> None:
    write_banking(tmp_path / "banking77")

    check("masking", TOY["masking"], tmp_path)

    assert {path.name for path in (tmp_path / "results" / "masking").iterdir()} == {"masking.json"}
    assert {"data"} == WITHOUT_RESULT
