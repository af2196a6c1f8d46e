"""Where data sets are from: one for each task, and what is missing of them is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from typer.testing import CliRunner

from benchmarks.bench_data import app
from benchmarks.data.sources import SOURCES
from benchmarks.tasks.opening import Name


def test_every_task_has_a_data_set_whose_commit_is_named() -> None:
    assert sorted(source.task for source in SOURCES) == sorted(get_args(Name))
    assert all(len(source.commit) == 40 and source.licence for source in SOURCES)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "banking77").mkdir()
    (tmp_path / "banking77" / "train.csv").write_text("")

    found = CliRunner().invoke(app, ["--folder", f"{tmp_path}", "--json"])

    banking, clinc, *_ = json.loads(found.stdout)["data_sets"]
    assert banking["missing"] == ["test.csv"]
    assert clinc["missing"] == ["data_full.json", "domains.json"]
    assert banking["home"].startswith("https://github.com/PolyAI-LDN/task-specific-datasets/tree/57ec275d")


def test_data_sets_are_told_in_words() -> None:
    found = CliRunner().invoke(app, [])

    assert "CC BY-NC 4.0" in " ".join(found.stdout.split())
