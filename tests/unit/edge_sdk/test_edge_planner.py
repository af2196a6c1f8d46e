"""Which rank a device takes, what it gives up for it, and when it declines."""

from __future__ import annotations

from typing import Any

import pytest
from fake_bundle import stamped, tiny_files, tiny_manifest
from fake_service import FakeService
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_costs import COSTS, MANIFEST, MB, SPEC_32, step_of
from strong_device import STRONG

from edge_sdk.planning import forecast as constants
from edge_sdk.planning import planner
from edge_sdk.planning.forecast import (
    Correction,
    StepPlan,
    forecast_round,
    training_rate,
)
from edge_sdk.planning.ladder import ladder
from edge_sdk.planning.planner import LEAST_SHARE_OF_STEPS, Planner
from edge_sdk.units import MIB
from hetlora.errors import DeviceTooSmall, NoExamples, RankOutOfRange
from hetlora.messages.device import CapabilityReport, Offer
from hetlora.messages.masking import MaskingTerms


def _offer(**changes: object) -> Offer:
    offer = FakeService().offer
    assert offer is not None
    training = offer.training.model_copy(update={"steps": 10, "batch_size": 4, "max_tokens": 8})
    usual = {"min_rank": 2, "max_rank": 32, "round_seconds": 600.0, "training": training}
    return offer.model_copy(update=usual | changes)


def _device(**changes: object) -> CapabilityReport:
    return STRONG.model_copy(update=changes)


def _available_for(peak_bytes: int) -> int:
    """Free memory of a device that may just use `peak_bytes`."""
    return int(peak_bytes / planner.MEMORY_SHARE) + 2


def test_run_that_holds_to_its_beginning_needs_a_copy_of_it() -> None:
    held = _offer(training=_offer().training.model_copy(update={"proximal": 0.1}))
    plain, more = (
        Planner(_device(), MANIFEST, offer, example_count=100).choose().forecast for offer in (_offer(), held)
    )
    assert more.peak_bytes - plain.peak_bytes == 32 * 2 * MB  # rank 32


def test_strong_device_takes_the_highest_rank_offered() -> None:
    choice = Planner(_device(), MANIFEST, _offer(), example_count=100).choose()
    assert (choice.rank, choice.bound_by) == (32, "offer")


def test_memory_costs_time_before_it_costs_rank() -> None:
    # Rank 32 takes 32 * 4.2 * 1.15 + 384 + 50 = 588.56 MB with all 32 tokens at once, 511.28 MB with 16 and
    # 472.64 MB with 8.
    available = _available_for(constants.PROCESS_BYTES + 480 * MB)
    choice = Planner(
        _device(memory_available_bytes=available), MANIFEST, _offer(), example_count=100
    ).choose()
    assert (choice.rank, choice.bound_by, choice.micro_batch) == (32, "offer", 1)
    assert choice.forecast.peak_bytes == constants.PROCESS_BYTES + 472_640_000
    more = _available_for(constants.PROCESS_BYTES + 520 * MB)
    choice = Planner(_device(memory_available_bytes=more), MANIFEST, _offer(), example_count=100).choose()
    assert (choice.rank, choice.micro_batch) == (32, 2)


def test_memory_bounds_the_rank_at_one_row_at_a_time() -> None:
    # 8 tokens: rank 8 takes 8 * 1.8 * 1.15 + 96 + 50 = 162.56 MB, rank 16 takes 8 * 2.6 * 1.15 + 192 + 50
    # = 265.92 MB. At rank 8 two rows go as well: 179.12 MB.
    available = _available_for(constants.PROCESS_BYTES + 200 * MB)
    choice = Planner(
        _device(memory_available_bytes=available), MANIFEST, _offer(), example_count=100
    ).choose()
    assert (choice.rank, choice.bound_by, choice.micro_batch) == (8, "memory", 2)
    assert choice.forecast.peak_bytes == constants.PROCESS_BYTES + 179_120_000


def test_rank_that_fits_never_takes_fewer_rows_than_it_could() -> None:
    assert Planner(_device(), MANIFEST, _offer(), example_count=100).choose().micro_batch == 4


def test_time_costs_steps_before_it_costs_rank() -> None:
    # 320 tokens in 10 steps: rank 32 takes 13.44 GFLOP, rank 16 takes 8.32 GFLOP; 1 GFLOP/s has 7 s: half of
    # the steps at rank 32, and 8 at rank 16.
    device = _device(cores=1, matmul_flops_per_second=1e9 / constants.TRAINING_EFFICIENCY)
    choice = Planner(device, MANIFEST, _offer(round_seconds=7.0), example_count=100).choose()
    assert (choice.rank, choice.bound_by, choice.forecast.steps) == (32, "offer", 5)
    assert choice.forecast.seconds == pytest.approx(6.72)


def test_time_bounds_the_rank_where_half_of_the_steps_do_not_fit() -> None:
    device = _device(cores=1, matmul_flops_per_second=1e9 / constants.TRAINING_EFFICIENCY)
    choice = Planner(device, MANIFEST, _offer(round_seconds=6.7), example_count=100).choose()
    assert (choice.rank, choice.bound_by, choice.forecast.steps) == (16, "time", 8)


def test_traffic_bounds_the_rank() -> None:
    # 2 MB per rank, down and up: rank 8 takes 32 MB, rank 16 takes 64 MB.
    device = _device(traffic_bytes_per_round=50 * MB)
    choice = Planner(device, MANIFEST, _offer(), example_count=100).choose()
    assert (choice.rank, choice.bound_by) == (8, "traffic")


def test_update_under_masks_is_as_wide_as_the_run_at_every_rank() -> None:
    masked = _offer(masking=MaskingTerms(rank=32, weighing="norm", largest=1024.0))
    numbers = SPEC_32.parameters_per_rank * 32 + 1
    up_bytes = 1024 + 8 * numbers  # more than a header takes, and 8 bytes a number
    device = _device(traffic_bytes_per_round=8 * MB + up_bytes)
    choice = Planner(device, MANIFEST, masked, example_count=100).choose()
    assert choice.bound_by == "traffic"
    assert choice.forecast.traffic_bytes == choice.rank * 2 * MB + up_bytes
    assert choice.rank == 4
    with pytest.raises(DeviceTooSmall, match="lack of traffic"):
        Planner(_device(traffic_bytes_per_round=up_bytes), MANIFEST, masked, example_count=100).choose()


@pytest.mark.parametrize(
    ("precision", "rank", "traffic"),
    # Up come 2, 1 or 0.5 MB a rank, with int8 also a scale for each of the two factors of its one module.
    [("float32", 8, 32 * MB), ("float16", 16, 48 * MB), ("int8", 16, 40 * MB + 16 * 8)],
)
def test_update_in_fewer_bytes_leaves_traffic_for_a_higher_rank(
    precision: Any, rank: int, traffic: int
) -> None:
    training = _offer().training.model_copy(update={"upload_precision": precision})
    device = _device(traffic_bytes_per_round=50 * MB)
    choice = Planner(device, MANIFEST, _offer(training=training), example_count=100).choose()
    assert (choice.rank, choice.bound_by, choice.forecast.traffic_bytes) == (rank, "traffic", traffic)


def test_rank_that_is_trained_anyway_takes_the_memory_and_the_rank_taken_the_upload() -> None:
    # Trained at rank 16 whatever is taken: 337.68 MB beside the process, 32 MB down, and 2 MB a rank up.
    offer = _offer().model_copy(update={"trained_rank": 16})
    device = _device(traffic_bytes_per_round=50 * MB)
    choice = Planner(device, MANIFEST, offer, example_count=100).choose()
    assert (choice.rank, choice.bound_by) == (8, "traffic")
    assert choice.forecast.peak_bytes == constants.PROCESS_BYTES + 337_680_000
    assert choice.forecast.download_bytes == 32 * MB
    assert choice.forecast.traffic_bytes == 48 * MB


def test_pictures_are_counted_by_the_picture() -> None:
    # Four pictures, rank 32: 4 * (1 + 3.2) * 1.15 + 6 * 64 + 50 = 453.32 MB, however long texts may be.
    pictures = tiny_manifest(tiny_files(), "image-classification").model_copy(
        update={"cost_model": COSTS, "adapter": SPEC_32}
    )
    choice = Planner(_device(), pictures, _offer(), example_count=100).choose()
    assert choice.forecast.peak_bytes == constants.PROCESS_BYTES + 453_320_000


def test_few_examples_make_small_batches() -> None:
    # With one example a batch is 8 tokens instead of 32: rank 16 takes 8 * 2.6 * 1.15 + 192 + 50 = 265.92 MB.
    choice = Planner(_device(), MANIFEST, _offer(max_rank=16), example_count=1).choose()
    assert choice.micro_batch == 1
    assert choice.forecast.peak_bytes == constants.PROCESS_BYTES + 265_920_000


def test_short_examples_make_small_batches() -> None:
    # No text is longer than 2 tokens, of 8: four of them are as many as one of 8.
    planned = Planner(_device(), MANIFEST, _offer(max_rank=16), 100, longest_tokens=2).choose()
    assert planned.forecast.peak_bytes == constants.PROCESS_BYTES + 265_920_000
    assert planned.max_tokens == 8  # what is longer tomorrow is not cut


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_available_bytes": 100 * MIB}, "lack of memory; got 70 MiB; expected 177 MiB"),
        # 160 tokens in half of the steps * 12 MFLOP = 1.92 GFLOP at 2 MFLOP/s.
        (
            {"cores": 1, "matmul_flops_per_second": 2e6 / constants.TRAINING_EFFICIENCY},
            "time; got 600.0 s; expected 960.0 s",
        ),
        ({"traffic_bytes_per_round": 5}, "lack of traffic; got 5 bytes; expected 8000000 bytes"),
    ],
    ids=["memory", "time", "traffic"],
)
def test_device_too_small_for_the_lowest_rank_says_by_how_much(changes: dict[str, int], message: str) -> None:
    # Rank 2, a row of 8 tokens at a time: 8 * 1.2 * 1.15 + 24 + 50 = 85.04 MB = 81.1 MiB beside the process
    # of 96 MiB: 177.1 MiB.
    with pytest.raises(DeviceTooSmall, match=f"not even rank 2 fits .*{message}"):
        Planner(_device(**changes), MANIFEST, _offer(), example_count=100).choose()


def test_bundle_limits_the_rank_of_a_generous_offer() -> None:
    assert Planner(_device(), MANIFEST, _offer(max_rank=512), example_count=100).choose().rank == 32


def test_stamped_bundle_leaves_one_rank() -> None:
    manifest = MANIFEST.model_copy(update={"fixed_rank": 6})
    choice = Planner(_device(), manifest, _offer(), example_count=100).choose()
    assert (choice.rank, choice.bound_by) == (6, "bundle")


@pytest.mark.parametrize(("rank", "limits"), [(1, "2 to 32"), (33, "2 to 32")])
def test_stamped_rank_that_the_offer_does_not_allow_is_refused(rank: int, limits: str) -> None:
    manifest = MANIFEST.model_copy(update={"fixed_rank": rank})
    with pytest.raises(RankOutOfRange, match=f"stamped for one rank.*; got {rank}; expected {limits}"):
        Planner(_device(), manifest, _offer(), example_count=100).choose()


def test_device_too_small_for_the_stamped_rank_says_so_though_a_lower_one_would_fit() -> None:
    device = _device(memory_available_bytes=_available_for(constants.PROCESS_BYTES + 200 * MB))
    manifest = MANIFEST.model_copy(update={"fixed_rank": 16})  # rank 8 fits, see above
    with pytest.raises(DeviceTooSmall, match="not even rank 16 fits this device, for lack of memory"):
        Planner(device, manifest, _offer(), example_count=100).choose()


def test_stamped_batch_counts_in_full_however_few_the_examples() -> None:
    choice = Planner(_device(), stamped(MANIFEST, rows=8, tokens=64), _offer(), example_count=1).choose()
    expected = forecast_round(COSTS, StepPlan(8, 64, 4, 8), steps=10, flops_per_second=1e9)
    assert choice.forecast.peak_bytes == expected.peak_bytes
    assert (choice.micro_batch, choice.max_tokens) == (8, 64)


def test_stamped_batch_is_not_cut_into_parts_for_want_of_memory() -> None:
    # 8 * 64 tokens at rank 4: 512 * 1.4 * 1.15 + 48 + 50 = 922.32 MB.
    device = _device(memory_available_bytes=_available_for(constants.PROCESS_BYTES + 900 * MB))
    with pytest.raises(DeviceTooSmall, match="not even rank 4 fits this device, for lack of memory"):
        Planner(device, stamped(MANIFEST, rows=8, tokens=64), _offer(), example_count=100).choose()


def _lean(**changes: Any) -> Planner:
    """A device with room for 5 tokens at rank 2, 24 + 50 + 5 * 1.38 = 80.9 MB, and an offer of texts of 8."""
    device = _device(memory_available_bytes=_available_for(constants.PROCESS_BYTES + 81 * MB))
    offer = _offer(training=_offer().training.model_copy(update=changes))
    return Planner(device, MANIFEST, offer, example_count=100)


def test_texts_are_cut_before_a_device_declines_where_the_run_permits_it() -> None:
    choice = _lean(min_tokens=3).choose()
    assert (choice.rank, choice.bound_by, choice.max_tokens, choice.micro_batch) == (2, "memory", 4, 1)
    assert choice.forecast.peak_bytes == constants.PROCESS_BYTES + 79_520_000


def test_texts_are_cut_no_shorter_than_the_run_permits() -> None:
    with pytest.raises(DeviceTooSmall):
        _lean(min_tokens=6).choose()
    with pytest.raises(DeviceTooSmall):
        _lean().choose()


def test_texts_are_not_cut_for_the_sake_of_rank() -> None:
    device = _device(memory_available_bytes=_available_for(constants.PROCESS_BYTES + 90 * MB))
    offer = _offer(training=_offer().training.model_copy(update={"min_tokens": 1}))
    choice = Planner(device, MANIFEST, offer, example_count=100).choose()
    assert (choice.rank, choice.max_tokens) == (2, 8)


def test_device_that_measured_more_than_was_forecast_takes_a_lower_rank() -> None:
    device = _device(memory_available_bytes=_available_for(constants.PROCESS_BYTES + 200 * MB))
    # Of 300.7 MB rank 8 takes 100.7 + 162.6 MB at one row and rank 4 takes 100.7 + 110.9 MB, as forecast.
    planned = Planner(device, MANIFEST, _offer(), 100, correction=Correction(memory=1.25)).choose()
    assert (planned.rank, planned.bound_by) == (4, "memory")


def test_bundle_that_is_missing_is_told_and_is_no_traffic_of_the_round() -> None:
    device = _device(traffic_bytes_per_round=50 * MB)
    planned = Planner(device, MANIFEST, _offer(), 100, bundle_bytes=700 * MB).choose()
    assert planned.rank == 8
    assert (planned.forecast.bundle_bytes, planned.forecast.traffic_bytes) == (700 * MB, 32 * MB)


def test_rank_that_pruning_left_is_never_passed_and_neither_is_the_measured_limit() -> None:
    # The service remembers what pruning left a device as the offer's max_rank; memory allows 8, see above.
    device = _device(memory_available_bytes=_available_for(constants.PROCESS_BYTES + 200 * MB))
    pruned, able = _offer(max_rank=6), _offer(max_rank=13)
    assert Planner(device, MANIFEST, pruned, example_count=100).choose().rank == 6
    assert Planner(device, MANIFEST, able, example_count=100).choose().rank == 8


@settings(deadline=None)  # the machine may be busy
@given(
    memory=st.integers(0, 4 * 2**30),
    rate=st.floats(1e7, 1e12),
    traffic=st.none() | st.integers(0, 200 * MB),
    min_rank=st.integers(1, 8),
    max_rank=st.integers(8, 32),
)
def test_choice_fits_and_the_next_rung_does_not(
    memory: int, rate: float, traffic: int | None, min_rank: int, max_rank: int
) -> None:
    device = _device(
        memory_available_bytes=memory, matmul_flops_per_second=rate, traffic_bytes_per_round=traffic
    )
    offer = _offer(min_rank=min_rank, max_rank=max_rank, round_seconds=10.0)

    def fits(rank: int) -> bool:
        """With one row at a time and half of the steps, which is all that may be given up before the rank."""
        step, rate = step_of(rank, rows=1), training_rate(device, None)
        forecast = forecast_round(COSTS, step, steps=10, flops_per_second=rate)
        return (
            forecast.peak_bytes <= planner.MEMORY_SHARE * memory
            and LEAST_SHARE_OF_STEPS * forecast.seconds <= 10.0
            and (traffic is None or forecast.traffic_bytes <= traffic)
        )

    try:
        choice = Planner(device, MANIFEST, offer, example_count=100).choose()
    except DeviceTooSmall:
        assert not fits(min_rank)
        return
    assert fits(choice.rank)
    assert choice.forecast.peak_bytes <= planner.MEMORY_SHARE * memory
    assert choice.forecast.seconds <= 10.0
    higher = [rank for rank in ladder(min_rank, max_rank) if rank > choice.rank]
    assert not any(fits(rank) for rank in higher)
    assert (choice.bound_by == "offer") == (not higher)


def test_round_without_an_end_leaves_time_for_all_steps() -> None:
    choice = Planner(_device(), MANIFEST, _offer(round_seconds=1e308), example_count=1).choose()
    assert choice.forecast.steps == _offer().training.steps


def test_examples_that_are_gone_by_then_are_told() -> None:
    with pytest.raises(NoExamples):
        Planner(_device(), MANIFEST, _offer(), example_count=0).choose()
