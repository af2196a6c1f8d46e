from __future__ import annotations

import pytest

from benchmarks.bench_forecast import SIZES, forecast_row, summary
from benchmarks.llama import SMOLLM_135M
from benchmarks.step_runs import StepRun, Variant
from benchmarks.step_shapes import Shape
from edge_sdk.planning.forecast import Forecast
from hetlora.cost import StepSize

INT8 = Variant("int8", "none")


def a_run(seconds: float, peak_bytes: int) -> StepRun:
    return StepRun(seconds, seconds, peak_bytes, first_loss=2.0, last_loss=1.0)


def a_forecast(peak_bytes: int, seconds: float) -> Forecast:
    return Forecast(peak_bytes, seconds, steps=1, download_bytes=0, upload_bytes=0)


def test_error_is_the_forecast_over_the_measured_figure_less_one() -> None:
    forecast = a_forecast(330, 1.5)
    runs = [a_run(2.0, 300), a_run(1.0, 300), a_run(9.0, 300)]
    row = forecast_row("23M", INT8, Shape(2, 96), StepSize(2, 96, 4, 0), forecast, runs, counted={"flops": 7})
    # 330 / 300 and 1.5 / 2.0.
    assert (row.memory_error, row.time_error) == (0.1, -0.25)
    assert (row.forecast_peak_bytes, row.peak_bytes) == (330, 300)
    assert (row.forecast_seconds, row.seconds) == (1.5, 2.0)
    assert (row.model, row.base, row.recompute, row.rank, row.shape) == ("23M", "int8", "none", 4, "2x96")
    assert row.counted == {"flops": 7}


def test_errors_are_summed_up_without_their_signs() -> None:
    measured = [a_run(1.0, 100)]
    rows = [
        forecast_row("23M", INT8, Shape(1, 8), StepSize(1, 8, 4, 0), forecast, measured, counted={})
        for forecast in (a_forecast(90, 1.5), a_forecast(105, 0.8), a_forecast(100, 1.0))
    ]
    # Memory 0.10, 0.05, 0 and time 0.5, 0.2, 0.
    assert summary(rows) == pytest.approx(
        {
            "largest_memory_error": 0.1,
            "median_memory_error": 0.05,
            "largest_time_error": 0.5,
            "median_time_error": 0.2,
        }
    )


def test_models_are_other_than_the_one_that_steps_are_measured_with() -> None:
    assert SMOLLM_135M not in SIZES.values()
