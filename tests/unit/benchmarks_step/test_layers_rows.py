from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench_layers import app, rows_of
from benchmarks.step_runs import StepRun
from hetlora.errors import SettingsError


def a_run(seconds: float, peak_bytes: int) -> StepRun:
    return StepRun(seconds, seconds, peak_bytes, first_loss=2.0, last_loss=1.0)


def test_shares_are_of_the_row_with_the_most_layers() -> None:
    rows = rows_of({1: [a_run(1.0, 300), a_run(3.0, 300)], 30: [a_run(4.0, 400), a_run(4.0, 400)]})
    assert [(row.last_layers, row.seconds, row.peak_bytes) for row in rows] == [(30, 4.0, 400), (1, 2.0, 300)]
    assert [(row.time_share, row.memory_share) for row in rows] == [(1.0, 1.0), (0.5, 0.75)]


@pytest.mark.parametrize("text", ["", "0", "three", "3,-1"])
def test_numbers_of_layers_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--last-layers"):
        app(["--last-layers", text, "--results", str(tmp_path)], standalone_mode=False)
