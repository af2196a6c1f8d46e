from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.bench_step import RECOMPUTE, app, variants_of
from benchmarks.harness import Measured
from benchmarks.step_comparison import step_row
from benchmarks.step_runs import Command, StepRun, Variant, run_in_turn
from benchmarks.step_shapes import Shape
from hetlora.errors import HetloraError, SettingsError

MB = 1_000_000
PLAIN = Variant("float32", "none")


def a_run(seconds: float, megabytes: int, *, loss: float = 11.0) -> StepRun:
    return StepRun(seconds, 2 * seconds, megabytes * MB, first_loss=loss, last_loss=loss - 1)


def test_shape_is_read_as_it_is_written() -> None:
    assert Shape.parse("4x256") == Shape(4, 256)
    assert str(Shape.parse("4x256")) == "4x256"


@pytest.mark.parametrize("text", ["", "4", "4x", "0x8", "4x-1", "4 x 256", "4x256x2"])
def test_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="expected texts x tokens"):
        Shape.parse(text)


def test_peers_faster_attention_counts_for_time_and_its_leaner_one_for_memory() -> None:
    peers = {"eager": [a_run(3.0, 800)], "sdpa": [a_run(2.0, 1000)]}
    row = step_row(PLAIN, Shape(4, 256), 2, [a_run(1.0, 400)], peers)
    # Time 2.0 / 1.0 and memory 400 / 800; the others would be 3.0 and 0.4.
    assert (row.time_ratio, row.peer_seconds, row.peer_attention) == (2.0, 2.0, "sdpa")
    assert (row.memory_ratio, row.peer_peak_bytes, row.peer_leanest_attention) == (0.5, 800 * MB, "eager")
    assert row.cpu_time_ratio == 2.0
    assert (row.seconds, row.peak_bytes) == (1.0, 400 * MB)
    assert (row.base, row.recompute, row.shape, row.threads) == ("float32", "none", "4x256", 2)


def test_ratios_are_medians_over_pairs() -> None:
    ours = [a_run(1.0, 100), a_run(2.0, 100), a_run(4.0, 100)]
    peers = {"sdpa": [a_run(3.0, 200), a_run(4.0, 200), a_run(4.0, 400)]}
    row = step_row(PLAIN, Shape(1, 8), 1, ours, peers)
    # 3/1, 4/2, 4/4 and 100/200, 100/200, 100/400.
    assert (row.time_ratio, row.memory_ratio) == (2.0, 0.5)
    assert (row.seconds, row.peer_seconds) == (2.0, 4.0)


def test_other_work_on_one_side_is_an_error() -> None:
    peers = {"eager": [a_run(1.0, 1)], "sdpa": [a_run(1.0, 1, loss=11.02)]}
    with pytest.raises(HetloraError, match=r"float32-none and sdpa differ.*got 11.000000 and 11.020000"):
        step_row(PLAIN, Shape(1, 8), 1, [a_run(1.0, 1)], peers)
    # 0.02 / 11.02 = 0.0018: as much as rounding to int8 may change.
    assert step_row(Variant("int8", "none"), Shape(1, 8), 1, [a_run(1.0, 1)], peers).time_ratio == 1.0


def test_loss_that_is_no_number_is_an_error() -> None:
    lost = [a_run(1.0, 1, loss=float("nan"))]
    with pytest.raises(HetloraError, match="not the same work"):
        step_row(Variant("int4", "none"), Shape(1, 8), 1, lost, {"sdpa": [a_run(1.0, 1)]})


def test_processes_run_in_turn() -> None:
    order: list[str] = []

    def runner(command: Command) -> Measured:
        order.append(str(command[0]))
        told = {"seconds_per_step": 1, "cpu_seconds_per_step": 1, "first_loss": 2, "last_loss": 1}
        return Measured(9.0, len(order) * MB, f"a warning\n{json.dumps(told)}\n")

    runs = run_in_turn({"ours": ["a"], "eager": ["b"], "sdpa": ["c"]}, 2, runner=runner)
    assert order == ["a", "b", "c", "a", "b", "c"]
    assert [run.peak_bytes for run in runs["eager"]] == [2 * MB, 5 * MB]
    assert runs["ours"][0] == StepRun(1, 1, MB, first_loss=2, last_loss=1)


def test_base_is_measured_with_its_own_recomputation_unless_others_are_given() -> None:
    assert variants_of("int8,float32", "") == [PLAIN, Variant("int8", RECOMPUTE["int8"])]
    assert variants_of("int8", "layer,none") == [Variant("int8", "none"), Variant("int8", "layer")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "int3"], r"--base; got \['int3'\]; expected some of \['float32'"),
        (["--base", ","], "--base is empty"),
        (["--recompute", "all"], r"--recompute; got \['all'\]"),
        (["--threads", "1,0"], "--threads; got 1,0"),
        (["--threads", ""], "--threads is empty"),
        (["--shape", "128"], "a shape of a batch; got 128"),
        (["--shape", ""], "--shape is empty"),
    ],
)
def test_option_that_cannot_be_used_is_told_before_any_work(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        app(["--results", str(tmp_path), *arguments], standalone_mode=False)
