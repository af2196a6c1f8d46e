"""Steps beside ExecuTorch's own flow: figures by hand."""

from __future__ import annotations

import pytest

from benchmarks.bench_executorch import executorch_row
from benchmarks.step_runs import StepRun
from benchmarks.step_shapes import Shape
from hetlora.errors import HetloraError


def run(seconds: float, peak_bytes: int, first_loss: float = 2.0, last_loss: float = 1.0) -> StepRun:
    return StepRun(seconds, seconds / 2, peak_bytes, first_loss, last_loss)


def test_ratios_are_medians_over_pairs() -> None:
    ours, peers = [run(1, 100), run(2, 100), run(1, 100)], [run(3, 400), run(4, 400), run(5, 200)]

    row = executorch_row("onnx", Shape(1, 8), ours, peers, {"seconds": 9.876}, 77)

    # 3, 2 and 5; a quarter, a quarter and a half.
    assert (row.time_ratio, row.cpu_time_ratio, row.memory_ratio) == (3.0, 3.0, 0.25)
    assert (row.seconds, row.peer_seconds) == (1, 4)
    assert (row.peer_export_seconds, row.peer_program_bytes) == (9.88, 77)


@pytest.mark.parametrize("losses", [(2.001, 1.0), (float("nan"), 1.0), (2.0, 1.001)])
def test_other_losses_are_of_other_work(losses: tuple[float, float]) -> None:
    with pytest.raises(HetloraError, match="not the same work"):
        executorch_row("onnx", Shape(1, 8), [run(1, 1)], [run(1, 1, *losses)], {"seconds": 1.0}, 1)
