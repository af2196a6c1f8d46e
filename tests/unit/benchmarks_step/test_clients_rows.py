"""Rows of `hetlora bench clients`: figures by hand, and who gets none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.clients import markdown
from benchmarks.clients.processes import Steps
from benchmarks.clients.rows import LOSS_TOLERANCE, Outcome, client_rows, run_in_turn
from benchmarks.clients.sizes import apk_sizes, page_sizes
from hetlora.errors import DependencyMissing, HetloraError, SettingsError


class OneTraining:
    rank = 8
    shape = "4x16"


def steps(*seconds: float, losses: tuple[float, ...] = (2.0, 1.0, 0.5)) -> Steps:
    return Steps(losses, seconds)


def rows_of(**outcomes: Outcome) -> list[Any]:
    training: Any = OneTraining()
    return list(client_rows("tiny", training, 1, outcomes, warm_up=1))


def test_a_ratio_is_the_median_over_starts_and_warm_up_does_not_count() -> None:
    python = Outcome([steps(9.0, 0.1, 0.1), steps(9.0, 0.2, 0.2), steps(9.0, 0.1, 0.1)])
    jvm = Outcome([steps(99.0, 0.2, 0.2), steps(99.0, 0.3, 0.3), steps(99.0, 0.4, 0.4)])
    own, other = rows_of(python=python, jvm=jvm)
    assert (own.ratio, own.seconds, own.loss_difference) == (1.0, 0.1, 0.0)
    assert other.ratio == 2.0  # of 2, 1.5 and 4
    assert other.seconds == 0.3
    assert other.quartile_seconds == (0.2, 0.4)
    assert other.words == ""


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ((2.0, 1.001, 0.5), "refused: loss 1.001000 at step 2, Python's is 1.000000"),
        ((2.0, math.nan, 0.5), "refused: loss nan at step 2, Python's is 1.000000"),
        ((2.0, 1.0), "refused: 2 steps where Python took 3"),
    ],
)
def test_a_client_with_other_losses_gets_no_figures(losses: tuple[float, ...], words: str) -> None:
    wrong = Outcome([steps(9.0, 0.1, 0.1, losses=losses)])
    _, row = rows_of(python=Outcome([steps(9.0, 0.1, 0.1)]), web=wrong)
    assert (row.words, row.seconds, row.ratio) == (words, None, None)


def test_losses_within_the_tolerance_are_the_same_work() -> None:
    near = Outcome([steps(9.0, 0.1, 0.1, losses=(2.0, 1 + LOSS_TOLERANCE / 2, 0.5))])
    _, row = rows_of(python=Outcome([steps(9.0, 0.1, 0.1)]), web=near)
    assert row.words == ""
    assert row.loss_difference == pytest.approx(LOSS_TOLERANCE / 2)


def test_a_client_that_is_missing_or_fails_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    started: list[str] = []

    def works(name: str) -> Any:
        def take(case: Path, threads: int) -> Steps:
            started.append(name)
            return steps(0.2, 0.1, 0.1)

        return take

    def fails(name: str, error: HetloraError) -> Any:
        def take(case: Path, threads: int) -> Steps:
            started.append(name)
            raise error

        return take

    clients = {
        "python": works("python"),
        "jvm": fails("jvm", DependencyMissing("no Java here")),
        "node": fails("node", SettingsError("threads", got=2)),
        "web": fails("web", HetloraError("the page broke")),
        "last": works("last"),
    }
    told: list[str] = []
    outcomes = run_in_turn(clients, tmp_path, 2, starts=2, tell=told.append)
    words = {row.client: row.words for row in rows_of(**outcomes)}
    assert words["jvm"].startswith("missing: no Java here")
    assert words["node"].startswith("not run: threads")
    assert words["web"].startswith("failed: the page broke")
    assert (words["python"], words["last"]) == ("", "")
    # What failed once is not tried again.
    assert started == ["python", "jvm", "node", "web", "last", "python", "last"]
    assert told[1] == "jvm, 2 threads"


def test_without_python_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    def broken(case: Path, threads: int) -> Steps:
        raise HetloraError("no runtime")

    with pytest.raises(HetloraError, match="no runtime"):
        run_in_turn({"python": broken}, tmp_path, 1, starts=1, tell=lambda told: None)


def test_sizes_are_of_what_is_served_the_largest_first(tmp_path: Path) -> None:
    (tmp_path / "0123").mkdir()
    (tmp_path / "main.js").write_bytes(b"x" * 500)
    (tmp_path / "0123" / "ort.wasm").write_bytes(b"\0" * 10_000)
    (tmp_path / "notes.txt").write_bytes(b"m" * 99_999)
    sizes = page_sizes(tmp_path)
    assert [(size.name, size.size_bytes) for size in sizes] == [("ort.wasm", 10_000), ("main.js", 500)]
    assert 0 < sizes[0].gzip_bytes < 100
    assert apk_sizes(tmp_path / "nowhere") == []
    (tmp_path / "hetlora-demo.apk").write_bytes(b"a" * 70)
    (tmp_path / "unaligned.apk").write_bytes(b"a" * 69)
    assert [(size.name, size.size_bytes) for size in apk_sizes(tmp_path)] == [("hetlora-demo.apk", 70)]


def test_tables_for_the_readme_tell_ratios_and_a_dash_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = {"model": "tiny", "shape": "4x16", "threads": 1}
    rows = [
        {**head, "client": "python", "seconds": 0.2312, "ratio": 1.0},
        {**head, "client": "jvm", "seconds": 0.4624, "ratio": 2.0},
        {**head, "client": "node", "seconds": None, "ratio": None},
    ]
    page = [{"name": "main.js", "size_bytes": 1500, "gzip_bytes": 700}]
    (tmp_path / "clients.json").write_text(json.dumps({"rows": rows, "page": page, "apk": []}))
    monkeypatch.setattr("sys.argv", ["markdown", str(tmp_path / "clients.json")])
    markdown.main()
    steps_table, sizes_table = capsys.readouterr().out.strip().split("\n\n")
    assert steps_table.splitlines()[0] == "| model, batch, threads | python, ms | jvm | node |"
    assert steps_table.splitlines()[2] == "| tiny, 4x16, 1 thread | 231 | 2.00 | - |"
    assert sizes_table.splitlines()[2:] == ["| main.js | 1.5 | 0.7 |", "| all | 1.5 | 0.7 |"]
