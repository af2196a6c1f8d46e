from typing import Any

import pytest
from fake_bundle import stamped
from fake_service import STRONG, FakeService, tiny_files, tiny_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.planning import planner
from edge_sdk.planning.planner import Forecast, choose_rank, forecast_round, ladder, training_rate
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.cost import CostModel, StepCost, StepSize
from hetlora.errors import DeviceTooSmall, RankOutOfRange
from hetlora.manifest import Manifest
from hetlora.messages.device import CapabilityReport, Offer

MB = 1_000_000

# Per token: 1 MB alive at rank 0 and 0.1 MB more per rank; 10 MFLOP and 1 MFLOP more per rank.
COSTS = CostModel(
    flops=StepCost(per_token=10 * MB, per_token_per_rank=MB),
    written_bytes=StepCost(),
    live_bytes=(StepCost(per_token=MB, per_token_per_rank=MB // 10),),
    most_chunk_rows=0,
    graph_nodes=0,
    base_weight_bytes=50 * MB,
    adapter_bytes_per_rank=2 * MB,
)
SPEC_32 = AdapterSpec((ModuleSpec("query", 64, 64),), scaling=1.0, max_rank=32)
MANIFEST: Manifest = tiny_manifest(tiny_files()).model_copy(
    update={"cost_model": COSTS, "adapter": SPEC_32, "max_tokens": 64}
)


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


def _step(rank: int) -> StepSize:
    return COSTS.step(batch=4, tokens=8, rank=rank)


def test_forecast_adds_process_base_live_tensors_and_six_adapters() -> None:
    # 32 tokens, rank 4: 32 * (1 + 0.4) MB = 44.8 MB alive and 0.15 of that in the allocator = 51.52 MB,
    # adapter 6 * 4 * 2 MB = 48 MB, base 50 MB. Time: 10 steps * 32 * (10 + 4) MFLOP = 4.48 GFLOP, 1 GFLOP/s.
    # Traffic: the adapter of 8 MB comes and goes.
    forecast = forecast_round(COSTS, _step(4), steps=10, flops_per_second=1e9)
    assert forecast == Forecast(planner.PROCESS_BYTES + 149_520_000, pytest.approx(4.48), 16 * MB)


def test_each_node_takes_memory_and_each_written_byte_takes_time() -> None:
    plain = forecast_round(COSTS, _step(4), steps=1, flops_per_second=1e9)
    costs = COSTS.model_copy(update={"graph_nodes": 1000, "written_bytes": StepCost(per_text=25 * MB)})
    forecast = forecast_round(costs, _step(4), steps=1, flops_per_second=1e9)
    assert forecast.peak_bytes - plain.peak_bytes == 1000 * 13 * 1024
    assert forecast.seconds - plain.seconds == pytest.approx(1.0)  # 4 * 25 MB * 10 operations a byte


def test_peak_is_that_of_the_moment_with_the_most_alive() -> None:
    # A step of 4 x 8 tokens: 32 * 3 = 96 bytes at one moment, 50 + 4 * 8 * 8 = 306 at another.
    moments = (StepCost(per_token=3), StepCost(fixed=50, per_token_pair=1))
    assert COSTS.model_copy(update={"live_bytes": moments}).peak_live_bytes(_step(1)) == 306


def test_strong_device_takes_the_highest_rank_offered() -> None:
    choice = choose_rank(_device(), MANIFEST, _offer(), example_count=100)
    assert (choice.rank, choice.bound_by) == (32, "offer")


def test_memory_bounds_the_rank() -> None:
    # Rank 8: 32 * 1.8 * 1.15 + 96 + 50 = 212.24 MB beside the process; rank 16 takes
    # 32 * 2.6 * 1.15 + 192 + 50 = 337.68 MB.
    available = _available_for(planner.PROCESS_BYTES + 220 * MB)
    choice = choose_rank(_device(memory_available_bytes=available), MANIFEST, _offer(), example_count=100)
    assert (choice.rank, choice.bound_by) == (8, "memory")
    assert choice.forecast.peak_bytes == planner.PROCESS_BYTES + 212_240_000


def test_time_bounds_the_rank() -> None:
    # 320 tokens in all: rank 4 takes 4.48 GFLOP, rank 8 takes 5.76 GFLOP; the device does 0.5 GFLOP/s.
    device = _device(cores=1, matmul_flops_per_second=0.5e9 / planner.TRAINING_EFFICIENCY)
    choice = choose_rank(device, MANIFEST, _offer(round_seconds=10.0), example_count=100)
    assert (choice.rank, choice.bound_by) == (4, "time")
    assert choice.forecast.seconds == pytest.approx(8.96)


def test_traffic_bounds_the_rank() -> None:
    # 2 MB per rank, down and up: rank 8 takes 32 MB, rank 16 takes 64 MB.
    device = _device(traffic_bytes_per_round=50 * MB)
    choice = choose_rank(device, MANIFEST, _offer(), example_count=100)
    assert (choice.rank, choice.bound_by) == (8, "traffic")


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
    choice = choose_rank(device, MANIFEST, _offer(training=training), example_count=100)
    assert (choice.rank, choice.bound_by, choice.forecast.traffic_bytes) == (rank, "traffic", traffic)


def test_rank_that_is_trained_anyway_takes_the_memory_and_the_rank_taken_the_upload() -> None:
    # Trained at rank 16 whatever is taken: 337.68 MB beside the process, 32 MB down, and 2 MB a rank up.
    offer = _offer().model_copy(update={"trained_rank": 16})
    device = _device(traffic_bytes_per_round=50 * MB)
    choice = choose_rank(device, MANIFEST, offer, example_count=100)
    assert (choice.rank, choice.bound_by) == (8, "traffic")
    assert choice.forecast.peak_bytes == planner.PROCESS_BYTES + 337_680_000
    assert choice.forecast.traffic_bytes == 48 * MB


def test_each_core_beyond_the_first_adds_half_of_one() -> None:
    # Four cores of 2 GFLOP/s: 2 * 0.65 * (1 + 3 / 2) = 3.25 GFLOP/s in training.
    device = _device(source="measured", cores=4, matmul_flops_per_second=2e9)
    assert training_rate(device, None) == pytest.approx(3.25e9)


def test_fewer_threads_use_fewer_cores() -> None:
    device = _device(source="measured", cores=4, matmul_flops_per_second=2e9)
    assert training_rate(device, 1) == pytest.approx(1.3e9)
    assert training_rate(device, 9) == pytest.approx(3.25e9)


def test_profile_by_hand_uses_all_its_cores_whatever_simulates_it() -> None:
    device = _device(source="given", cores=4)
    assert training_rate(device, 1) == training_rate(device, None)


def test_pictures_are_counted_by_the_picture() -> None:
    # Four pictures, rank 32: 4 * (1 + 3.2) * 1.15 + 6 * 64 + 50 = 453.32 MB, however long texts may be.
    pictures = tiny_manifest(tiny_files(), "image-classification").model_copy(
        update={"cost_model": COSTS, "adapter": SPEC_32}
    )
    choice = choose_rank(_device(), pictures, _offer(), example_count=100)
    assert choice.forecast.peak_bytes == planner.PROCESS_BYTES + 453_320_000


def test_few_examples_make_small_batches_and_so_room_for_rank() -> None:
    # With one example a batch is 8 tokens instead of 32: rank 16 takes 8 * 2.6 * 1.15 + 192 + 50 = 265.92 MB.
    available = _available_for(planner.PROCESS_BYTES + 270 * MB)
    device = _device(memory_available_bytes=available)
    assert choose_rank(device, MANIFEST, _offer(), example_count=1).rank == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_available_bytes": 100 * planner.MIB}, "lack of memory; got 70 MiB .* expected 209 MiB"),
        # 320 tokens * 12 MFLOP = 3.84 GFLOP at 4 MFLOP/s.
        (
            {"cores": 1, "matmul_flops_per_second": 4e6 / planner.TRAINING_EFFICIENCY},
            "time; got 600.0 s .* expected 960.0 s",
        ),
        ({"traffic_bytes_per_round": 5}, "lack of traffic; got 5 bytes .* expected 8000000 bytes"),
    ],
    ids=["memory", "time", "traffic"],
)
def test_device_too_small_for_the_lowest_rank_says_by_how_much(changes: dict[str, int], message: str) -> None:
    # Rank 2: 32 * 1.2 * 1.15 + 24 + 50 = 118.16 MB = 112.7 MiB beside the process of 96 MiB: 208.7 MiB.
    with pytest.raises(DeviceTooSmall, match=f"not even rank 2 fits .*{message}"):
        choose_rank(_device(**changes), MANIFEST, _offer(), example_count=100)


def test_bundle_limits_the_rank_of_a_generous_offer() -> None:
    assert choose_rank(_device(), MANIFEST, _offer(max_rank=512), example_count=100).rank == 32


def test_stamped_bundle_leaves_one_rank() -> None:
    manifest = MANIFEST.model_copy(update={"fixed_rank": 6})
    choice = choose_rank(_device(), manifest, _offer(), example_count=100)
    assert (choice.rank, choice.bound_by) == (6, "bundle")


@pytest.mark.parametrize(("rank", "limits"), [(1, "2 to 32"), (33, "2 to 32")])
def test_stamped_rank_that_the_offer_does_not_allow_is_refused(rank: int, limits: str) -> None:
    manifest = MANIFEST.model_copy(update={"fixed_rank": rank})
    with pytest.raises(RankOutOfRange, match=f"stamped for one rank.*; got {rank}; expected {limits}"):
        choose_rank(_device(), manifest, _offer(), example_count=100)


def test_device_too_small_for_the_stamped_rank_says_so_though_a_lower_one_would_fit() -> None:
    device = _device(memory_available_bytes=_available_for(planner.PROCESS_BYTES + 220 * MB))
    manifest = MANIFEST.model_copy(update={"fixed_rank": 16})  # rank 8 fits, see above
    with pytest.raises(DeviceTooSmall, match="not even rank 16 fits this device, for lack of memory"):
        choose_rank(device, manifest, _offer(), example_count=100)


def test_stamped_batch_counts_in_full_however_few_the_examples() -> None:
    choice = choose_rank(_device(), stamped(MANIFEST, rows=8, tokens=64), _offer(), example_count=1)
    expected = COSTS.step(batch=8, tokens=64, rank=4)
    assert (
        choice.forecast.peak_bytes
        == forecast_round(COSTS, expected, steps=10, flops_per_second=1e9).peak_bytes
    )


def test_ladder_has_both_limits_and_the_powers_of_two_between() -> None:
    assert ladder(1, 32) == [1, 2, 4, 8, 16, 32]
    assert ladder(3, 31) == [3, 4, 8, 16, 31]
    assert ladder(5, 5) == [5]


def test_limits_without_a_rank_between_them_are_refused() -> None:
    with pytest.raises(RankOutOfRange, match="got 8 to 4"):
        ladder(8, 4)


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
        forecast = forecast_round(COSTS, _step(rank), steps=10, flops_per_second=training_rate(device, None))
        return (
            forecast.peak_bytes <= planner.MEMORY_SHARE * memory
            and forecast.seconds <= 10.0
            and (traffic is None or forecast.traffic_bytes <= traffic)
        )

    try:
        choice = choose_rank(device, MANIFEST, offer, example_count=100)
    except DeviceTooSmall:
        assert not fits(min_rank)
        return
    assert fits(choice.rank)
    higher = [rank for rank in ladder(min_rank, max_rank) if rank > choice.rank]
    assert not any(fits(rank) for rank in higher)
    assert (choice.bound_by == "offer") == (not higher)
