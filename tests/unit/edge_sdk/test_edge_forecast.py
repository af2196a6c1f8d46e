"""What a round is expected to take, from the cost model and the device's rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_costs import COSTS, MB, step_of
from strong_device import STRONG

from edge_sdk.planning.forecast import (
    PROCESS_BYTES,
    Correction,
    Forecast,
    StepPlan,
    forecast_round,
    training_rate,
)
from hetlora.cost import StepCost


def test_forecast_adds_process_base_live_tensors_and_six_adapters() -> None:
    # 32 tokens, rank 4: 32 * (1 + 0.4) MB = 44.8 MB alive and 0.15 of that in the allocator = 51.52 MB,
    # adapter 6 * 4 * 2 MB = 48 MB, base 50 MB. Time: 10 steps * 32 * (10 + 4) MFLOP = 4.48 GFLOP, 1 GFLOP/s.
    # Traffic: the adapter of 8 MB comes and goes.
    forecast = forecast_round(COSTS, step_of(4), steps=10, flops_per_second=1e9)
    assert forecast == Forecast(
        PROCESS_BYTES + 149_520_000,
        pytest.approx(0.448),
        10,
        download_bytes=8 * MB,
        upload_bytes=8 * MB,
    )
    assert (forecast.seconds, forecast.traffic_bytes) == (pytest.approx(4.48), 16 * MB)


def test_each_node_takes_memory_and_each_written_byte_takes_time() -> None:
    plain = forecast_round(COSTS, step_of(4), steps=1, flops_per_second=1e9)
    costs = COSTS.model_copy(update={"graph_nodes": 1000, "written_bytes": StepCost(per_text=25 * MB)})
    forecast = forecast_round(costs, step_of(4), steps=1, flops_per_second=1e9)
    assert forecast.peak_bytes - plain.peak_bytes == 1000 * 13 * 1024
    assert forecast.seconds - plain.seconds == pytest.approx(1.0)  # 4 * 25 MB * 10 operations a byte


def test_graph_that_scores_lies_beside_the_one_that_trains() -> None:
    costs = COSTS.model_copy(update={"graph_nodes": 1000})
    plain = forecast_round(costs, step_of(4), steps=1, flops_per_second=1e9)
    scored = forecast_round(costs, step_of(4), steps=1, flops_per_second=1e9, scores=True)
    assert scored.peak_bytes - plain.peak_bytes == 50 * MB + 1000 * 13 * 1024


def test_peak_is_that_of_the_moment_with_the_most_alive() -> None:
    # A step of 4 x 8 tokens: 32 * 3 = 96 bytes at one moment, 50 + 4 * 8 * 8 = 306 at another.
    moments = (StepCost(per_token=3), StepCost(fixed=50, per_token_pair=1))
    assert (
        COSTS.model_copy(update={"live_bytes": moments}).peak_live_bytes(
            COSTS.step(batch=4, tokens=8, rank=1)
        )
        == 306
    )


@given(batch=st.integers(1, 200), rows=st.integers(1, 200))
def test_parts_of_a_batch_are_the_whole_batch(batch: int, rows: int) -> None:
    parts = StepPlan(batch, 8, 4, min(rows, batch)).parts
    assert sum(parts) == batch
    assert max(parts) == parts[0] == min(rows, batch)


def test_parts_take_the_time_of_what_each_step_through_the_graph_costs() -> None:
    # 10 GFLOP for each pass through the graph, 4 rows: one pass or, three rows at a time, two.
    costs = COSTS.model_copy(update={"flops": StepCost(fixed=10**10, per_text=10**9)})
    whole = forecast_round(costs, step_of(4), steps=1, flops_per_second=1e9)
    parts = forecast_round(costs, step_of(4, rows=3), steps=1, flops_per_second=1e9)
    assert (whole.seconds, parts.seconds) == (pytest.approx(14.0), pytest.approx(24.0))


FOUR_CORES = {"source": "measured", "cores": 4, "matmul_flops_per_second": 2e9}


def test_each_core_beyond_the_first_adds_half_of_one() -> None:
    # Four cores of 2 GFLOP/s: 2 * 0.65 * (1 + 3 / 2) = 3.25 GFLOP/s in training.
    device = STRONG.model_copy(update=FOUR_CORES)
    assert training_rate(device, None) == pytest.approx(3.25e9)


def test_fewer_threads_use_fewer_cores() -> None:
    device = STRONG.model_copy(update=FOUR_CORES)
    assert training_rate(device, 1) == pytest.approx(1.3e9)
    assert training_rate(device, 9) == pytest.approx(3.25e9)


def test_profile_by_hand_uses_all_its_cores_whatever_simulates_it() -> None:
    device = STRONG.model_copy(update={"source": "given", "cores": 4})
    assert training_rate(device, 1) == training_rate(device, None)


def test_correction_acts_on_peak_and_time() -> None:
    # 149.52 MB beside the process and 4.48 s as forecast; this device took 1.5 and 2 times that.
    measured = Correction(memory=1.5, seconds=2.0, watts=10.0)
    forecast = forecast_round(COSTS, step_of(4), steps=10, flops_per_second=1e9, correction=measured)
    assert forecast.peak_bytes == 1.5 * (PROCESS_BYTES + 149_520_000)
    assert forecast.seconds == pytest.approx(8.96)
    assert forecast.joules == pytest.approx(89.6)


def test_without_a_sensor_nobody_knows_the_energy() -> None:
    assert forecast_round(COSTS, step_of(4), steps=10, flops_per_second=1e9).joules is None
