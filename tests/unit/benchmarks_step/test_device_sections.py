"""What the sections of `hetlora bench device` beside the forecast make of what processes tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.bench_device import app
from benchmarks.device.clock import HeldClock
from benchmarks.device.overhead import overhead_row
from benchmarks.device.plot import draw
from benchmarks.device.probes import RATES, probe_rows
from benchmarks.device.resume import resume_row
from benchmarks.device.traffic import PRECISIONS, fetched_bytes, traffic_row
from hetlora.bundle import Bundle
from hetlora.errors import HetloraError


def told_of_steps(sdk_loss: float = 2.0) -> dict[str, Any]:
    """Two steps of warm-up, and then three that count."""
    own = {
        "sdk": [9.0, 9.0, 1.02, 2.08, 4.12],
        "bare": [1.0, 1.0, 1.0, 2.0, 4.0],
        "data": [0.0, 0.0, 0.1, 0.2, 0.3],
        "checkpoint": [9.0, 9.0, 0.0, 0.3, 0.0],
    }
    processor = {
        "sdk": [9.0, 9.0, 1.01, 2.0, 4.4],
        "bare": [1.0, 1.0, 1.0, 2.0, 4.0],
        "data": [0.0] * 5,
        "checkpoint": [9.0, 9.0, 0.0, 0.06, 0.0],
    }
    return {
        "seconds": {"wall": own, "processor": processor},
        "first_losses": {"sdk": sdk_loss, "bare": 2.0},
    }


def test_overhead_is_the_middle_of_the_pairs_and_shares_are_of_a_bare_step() -> None:
    row = overhead_row("encoder", 2, "2x64", [told_of_steps()])
    # 0.3 s in three steps of 2 s; and 0.2 s of 2 s.
    assert (row.checkpoints, row.data) == (0.05, 0.1)
    # The middle of 2, 4 and 3 percent, and of 1, 0 and 10, with the checkpoints.
    assert (row.bare_seconds, row.overhead, row.processor_overhead) == (2.0, 0.08, 0.02)


def test_pairs_of_all_processes_count_and_the_warm_up_of_none() -> None:
    slow = told_of_steps()
    slow["seconds"]["wall"] = {
        "sdk": [9.0, 9.0, 1.5],
        "bare": [1.0, 1.0, 1.0],
        "data": [0.0, 0.0, 0.1],
        "checkpoint": [0.0, 0.0, 0.3],
    }
    row = overhead_row("encoder", 2, "2x64", [told_of_steps(), slow])
    # Ratios are 1.02, 1.04, 1.03 and 1.5; bare steps 1, 2, 4 and 1; checkpoints 0.6 s in four steps of 1.5 s.
    assert (row.overhead, row.bare_seconds) == (0.135, 1.5)


def test_sides_that_took_other_steps_are_no_pair() -> None:
    with pytest.raises(HetloraError, match="first losses"):
        overhead_row("encoder", 2, "2x64", [told_of_steps(), told_of_steps(sdk_loss=2.001)])


def trained(kept_after: list[int]) -> dict[str, Any]:
    return {"step_seconds": 0.5, "kept_after": kept_after, "checkpoint_bytes": 1000}


def gone_on(seconds: float, steps_before: int = 7) -> dict[str, float]:
    return {"seconds": seconds, "restore_seconds": 0.05, "steps_before": steps_before}


def test_resuming_costs_what_it_takes_beyond_a_beginning_in_steps() -> None:
    pairs = [
        (gone_on(2.0), gone_on(1.9, 0)),
        (gone_on(2.2), gone_on(2.0, 0)),
        (gone_on(9.0), gone_on(1.0, 0)),
    ]
    row = resume_row("encoder", 32, "2x64", trained([3, 5, 9]), pairs)
    # 0.2 s more and 0.05 s for reading, of 0.5 s a step; checkpoints were 2 and 4 steps apart.
    assert (row.resume_steps, row.restore_steps, row.steps_between) == (0.4, 0.1, 3)


def test_distance_of_checkpoints_is_unknown_where_one_alone_was_kept() -> None:
    assert resume_row("m", 2, "1x8", trained([4]), [(gone_on(1), gone_on(1, 0))]).steps_between is None


def test_round_that_began_anew_is_no_resumed_one() -> None:
    with pytest.raises(HetloraError, match="began anew"):
        resume_row("m", 2, "1x8", trained([4]), [(gone_on(1, 0), gone_on(1, 0))])


def test_probes_deviate_by_the_farthest_from_the_middle_and_unknown_rates_have_no_row() -> None:
    known, unknown = RATES[:2]
    others = dict.fromkeys(RATES, None)
    found = [{**others, known: value, unknown: None} for value in (100.0, 80.0, 104.0)]
    (row,) = probe_rows(found)
    assert (row.rate, row.median_per_second, row.largest_deviation) == (known, 100.0, 0.2)


def test_lower_precisions_and_ranks_take_fewer_bytes_up_and_as_many_down(tiny_bundle: Bundle) -> None:
    rows = {(rank, precision): traffic_row("tiny", tiny_bundle, rank, precision, seed=0)
            for rank in (2, 8) for precision in PRECISIONS}  # fmt: skip
    numbers = tiny_bundle.manifest.adapter.parameters_per_rank
    header = rows[2, "float32"].up_bytes - 4 * 2 * numbers
    assert rows[8, "float32"].up_bytes - 4 * 8 * numbers == pytest.approx(header, abs=64)
    assert rows[8, "float16"].up_bytes - 2 * 8 * numbers == pytest.approx(header, abs=64)
    # An int8 has scales beside it, in 4 bytes for each rank of a factor, and entries of their own for them.
    assert rows[8, "int8"].up_bytes < rows[8, "float16"].up_bytes
    assert len({rows[8, precision].down_bytes for precision in PRECISIONS}) == 1


def test_device_fetches_of_a_bundle_what_its_runtime_opens(tiny_bundle: Bundle) -> None:
    unread = tiny_bundle.path("optimizer.onnx").stat().st_size
    whole = sum(path.stat().st_size for path in tiny_bundle.folder.iterdir())
    assert fetched_bytes(tiny_bundle) == {"onnx": whole - unread, "all": whole}


def test_clock_that_is_held_stands_still() -> None:
    ticks = iter([10.0, 11.0, 15.0, 16.0])
    clock = HeldClock(lambda: next(ticks))
    assert clock() == 10
    with clock.held():  # from 11 to 15
        pass
    assert clock() == 12


def test_picture_of_one_section_alone_is_drawn(tmp_path: Path) -> None:
    draw({"probes": [{"rate": "matmul", "largest_deviation": 0.1}]}, tmp_path / "own.png")
    assert (tmp_path / "own.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_all_beside_the_forecast_is_measured_of_a_bundle_of_ones_own(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    own = ["--bundle", str(tiny_bundle.folder), "--rank", "1,8", "--shape", "2x16", "--quick", "--json"]
    sections = ["--section", "overhead,resume,traffic,probe"]
    done = CliRunner().invoke(app, [*own, *sections, "--results", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    name = "device-overhead-resume-traffic-probe"  # so that a whole run's result is not replaced
    assert found == json.loads((tmp_path / f"{name}.json").read_text())
    assert found["overhead_max"] == max(row["overhead"] for row in found["overhead"])
    assert [row["checkpoint_bytes"] > 0 for row in found["resume"]] == [True]
    assert [(row["rank"], row["precision"]) for row in found["traffic"]] == [
        (rank, precision) for rank in (1, 8) for precision in PRECISIONS
    ]
    assert {row["rate"] for row in found["probes"]} <= set(RATES)
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
