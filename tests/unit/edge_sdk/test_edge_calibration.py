"""What a trial says of the forecast."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from fake_bundle import stamped, tiny_files, tiny_manifest
from fake_service import FakeService
from strong_device import STRONG

from edge_sdk.planning.calibration import correction_of, plan_trial, trial_forecast
from edge_sdk.planning.forecast import PROCESS_BYTES, Correction, Forecast, StepPlan
from edge_sdk.planning.planner import MEMORY_SHARE, Planner
from edge_sdk.planning.trial import Trial
from hetlora.cost import CostModel, StepCost
from hetlora.errors import DeviceTooSmall
from hetlora.manifest import Manifest

MB = 1_000_000
# 100 MB a row beside 50 MB, and a second a row at 1 GFLOP/s.
COSTS = CostModel(
    flops=StepCost(per_text=10**9),
    written_bytes=StepCost(),
    live_bytes=(StepCost(per_text=100 * MB),),
    most_chunk_rows=0,
    graph_nodes=0,
    base_weight_bytes=50 * MB,
    adapter_bytes_per_rank=0,
)
MANIFEST: Manifest = tiny_manifest(tiny_files()).model_copy(update={"cost_model": COSTS})
FORECAST = Forecast(2 * PROCESS_BYTES, 2.0, 1, download_bytes=0, upload_bytes=0)


def planner(manifest: Manifest = MANIFEST, *, free_bytes: int = 4 * 2**30, seconds: float = 600.0) -> Planner:
    offer = FakeService().offer
    assert offer is not None
    training = offer.training.model_copy(update={"batch_size": 4, "steps": 10})
    device = STRONG.model_copy(update={"memory_available_bytes": free_bytes, "matmul_flops_per_second": 1e9})
    asked = offer.model_copy(update={"round_seconds": seconds, "training": training})
    return Planner(device, manifest, asked, 100)


def test_correction_is_what_was_measured_over_what_was_forecast() -> None:
    # The model was forecast to take as much as the process, and took twice that.
    trial = Trial(seconds=3.0, grown_bytes=2 * PROCESS_BYTES, watts=9.0)
    assert correction_of(trial, FORECAST) == Correction(memory=1.5, seconds=1.5, watts=9.0)


def test_what_any_first_step_adds_to_a_process_says_little_of_a_small_model() -> None:
    small = Forecast(PROCESS_BYTES + MB, 2.0, 1, download_bytes=0, upload_bytes=0)
    assert 1.1 < correction_of(Trial(2.0, 12 * MB, None), small).memory < 1.2


def test_memory_that_no_system_tells_is_taken_as_forecast() -> None:
    assert correction_of(Trial(1.0, None, None), FORECAST) == Correction(memory=1.0, seconds=0.5)


def test_memory_that_the_process_held_already_is_not_trusted_to_be_there_again() -> None:
    assert correction_of(Trial(2.0, 10 * MB, None), FORECAST).memory == 0.7  # and not 0.55


def test_device_whose_memory_no_forecast_can_tell_declines() -> None:
    correction = correction_of(Trial(2.0, 7 * PROCESS_BYTES + 21 * MB, None), FORECAST)
    with pytest.raises(DeviceTooSmall, match=r"far more memory than was forecast; got 4\.1 times"):
        replace(planner(), correction=correction).choose()


@pytest.mark.parametrize(("seconds", "ratio"), [(0.1, 0.25), (20.0, 4.0)])
def test_time_beyond_any_probe_is_bounded_and_told(
    seconds: float, ratio: float, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert correction_of(Trial(seconds, 200 * MB, None), FORECAST).seconds == ratio
    assert "event=probe_distrusted" in caplog.text


def test_trial_is_of_one_micro_batch_and_its_forecast_has_no_correction() -> None:
    # Two rows at a time: 2 * 115 + 50 MB, two seconds of 1 GFLOP/s * 0.65 * 2.5.
    corrected = planner()
    forecast = trial_forecast(corrected, StepPlan(batch=4, tokens=8, rank=4, micro_batch=2))
    assert forecast.peak_bytes == PROCESS_BYTES + 280 * MB
    assert forecast.step_seconds == pytest.approx(2 / 0.65 / 2.5)


def free_for(model_bytes: int, share: float) -> int:
    return int((PROCESS_BYTES + model_bytes) / share) + 2


def test_step_that_would_be_trained_is_the_one_that_is_tried() -> None:
    # 280 MB is two rows at a time.
    tried = plan_trial(planner(free_bytes=free_for(300 * MB, MEMORY_SHARE)))
    assert tried == StepPlan(batch=4, tokens=8, rank=4, micro_batch=2)


def test_device_that_is_nearly_large_enough_tries_the_smallest_step() -> None:
    # One row takes 165 MB: more than 0.7 of the free memory, less than 0.9.
    tried = plan_trial(planner(free_bytes=free_for(170 * MB, 0.9)))
    assert tried == StepPlan(batch=4, tokens=8, rank=1, micro_batch=1)


def test_device_that_is_far_too_small_declines_before_anything_is_loaded() -> None:
    with pytest.raises(DeviceTooSmall, match="not even rank 1 fits this device, for lack of memory"):
        plan_trial(planner(free_bytes=free_for(160 * MB, 0.9)))


def test_device_that_may_be_fast_enough_is_tried() -> None:
    # Half of 10 steps of 4 rows take 20 / (0.65 * 2.5) = 12.3 s; four times faster it would be 3.1.
    assert plan_trial(planner(seconds=3.2)).rank == 1
    with pytest.raises(DeviceTooSmall, match="lack of time"):
        plan_trial(planner(seconds=3.0))


def test_stamped_bundle_is_tried_with_the_rows_that_it_takes() -> None:
    manifest = stamped(MANIFEST, rows=2, tokens=16)
    tried = plan_trial(planner(manifest, free_bytes=free_for(290 * MB, 0.9)))
    assert tried == StepPlan(batch=2, tokens=16, rank=4, micro_batch=2)
