"""From what a device can do to the rank at which it trains."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Final, Literal

from edge_sdk.batching.sizes import fixed_sizes
from hetlora.cost import CostModel, StepSize
from hetlora.errors import DeviceTooSmall, RankOutOfRange
from hetlora.manifest import Manifest, reads_images
from hetlora.messages.device import CapabilityReport, Offer
from hetlora.rounding import bytes_per_rank

MIB: Final = 1024 * 1024

# Of the memory that is free now; the rest is for the app around the SDK and for the forecast's error.
MEMORY_SHARE: Final = 0.7
# The constants of memory and time were fitted to 104 measured steps, where the peak came out within 9 %
# (docs/adr/0010-cost-model.md); `hetlora bench forecast` tries them on other models.
# Resident size of Python, the SDK's libraries and an opened runtime before they hold a model.
PROCESS_BYTES: Final = 96 * MIB
# What the runtime keeps for each node of an opened graph.
NODE_BYTES: Final = 13 * 1024
# Memory over tensors that are alive: blocks of the allocator, and what kernels hold for a moment.
LIVE_SHARE: Final = 1.15
# The adapter, its gradient, AdamW's two moments, and the copies in which these enter and leave a step.
COPIES_OF_ADAPTER: Final = 6
# What nodes other than matrix products take, as operations of these for each byte that they write.
FLOPS_PER_WRITTEN_BYTE: Final = 10
# Share of the probe's matmul rate that a training step's products reach.
TRAINING_EFFICIENCY: Final = 0.65
# What each core beyond the first adds: not every kernel splits its work, and cores often come in pairs that
# share one arithmetic unit.
EXTRA_CORE_SHARE: Final = 0.5

Limit = Literal["memory", "time", "traffic"]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a round at some rank is expected to take; traffic is the adapter's, down and up."""

    peak_bytes: int
    seconds: float
    traffic_bytes: int


@dataclass(frozen=True, slots=True)
class RankChoice:
    """The rank to train at, and what kept it from being higher."""

    rank: int
    bound_by: Literal["offer", "bundle"] | Limit
    forecast: Forecast


def choose_rank(
    capabilities: CapabilityReport,
    manifest: Manifest,
    offer: Offer,
    *,
    example_count: int,
    threads: int | None = None,
) -> RankChoice:
    """The highest rank of the offer's ladder that fits the device.

    What limits it: free memory, the round's time, and the traffic that the device allows itself. A bundle
    stamped for one rank leaves that or nothing; stamped sizes of the batch count in full. A frozen adapter is
    not in the forecast: only the plan tells of it, which is made for the rank chosen here.

    Raises:
        DeviceTooSmall: not even the lowest rank fits; the message says by how much.
        RankOutOfRange: the offer leaves no rank, or not the one that the bundle is stamped for.
        BundleInvalid: inputs of the manifest that no batch has.
    """
    sizes = fixed_sizes(manifest)
    batch = sizes.rows or min(offer.training.batch_size, example_count)
    tokens = sizes.tokens or min(offer.training.max_tokens, manifest.max_tokens)
    if reads_images(manifest.task):
        tokens = 1  # what a picture takes is counted by the picture, ranks included
    sent_per_rank = bytes_per_rank(
        manifest.adapter, manifest.cost_model.adapter_bytes_per_rank, offer.training.upload_precision
    )
    budget = _budget(capabilities, offer)
    best: RankChoice | None = None
    for rank in _ranks(manifest, offer):
        forecast = forecast_round(
            manifest.cost_model,
            manifest.cost_model.step(batch=batch, tokens=tokens, rank=offer.trained_rank or rank),
            steps=offer.training.steps,
            flops_per_second=training_rate(capabilities, threads),
            sent_bytes=rank * sent_per_rank,
        )
        limit = _limit_passed(forecast, budget)
        if limit is not None and best is None:
            raise DeviceTooSmall(
                f"not even rank {rank} fits this device, for lack of {limit}",
                got=_in_words(budget, limit),
                expected=_in_words(forecast, limit),
            )
        if limit is not None and best is not None:
            return replace(best, bound_by=limit)
        best = RankChoice(rank, "offer" if manifest.fixed_rank is None else "bundle", forecast)
    assert best is not None  # a ladder has at least one rung
    return best


def _ranks(manifest: Manifest, offer: Offer) -> list[int]:
    ranks = ladder(offer.min_rank, min(offer.max_rank, manifest.adapter.max_rank))
    if manifest.fixed_rank is None:
        return ranks
    if not ranks[0] <= manifest.fixed_rank <= ranks[-1]:
        raise RankOutOfRange(
            "the bundle is stamped for one rank, which the offer does not allow",
            got=manifest.fixed_rank,
            expected=f"{ranks[0]} to {ranks[-1]}",
        )
    return [manifest.fixed_rank]


def _budget(capabilities: CapabilityReport, offer: Offer) -> Forecast:
    traffic_bytes = capabilities.traffic_bytes_per_round
    return Forecast(
        int(MEMORY_SHARE * capabilities.memory_available_bytes),
        offer.round_seconds,
        sys.maxsize if traffic_bytes is None else traffic_bytes,
    )


def _limit_passed(forecast: Forecast, budget: Forecast) -> Limit | None:
    if forecast.peak_bytes > budget.peak_bytes:
        return "memory"
    if forecast.seconds > budget.seconds:
        return "time"
    return "traffic" if forecast.traffic_bytes > budget.traffic_bytes else None


def _in_words(forecast: Forecast, limit: Limit) -> str:
    return {
        "memory": f"{forecast.peak_bytes / MIB:.0f} MiB to train in",
        "time": f"{forecast.seconds:.1f} s of training",
        "traffic": f"{forecast.traffic_bytes} bytes of traffic",
    }[limit]


def ladder(min_rank: int, max_rank: int) -> list[int]:
    """The ranks a device chooses from: both limits, and the powers of two between them.

    Few distinct ranks, so that devices share one truncated adapter each, and steps wide enough that the noise
    of a probe does not move a device up and down. Self-pruning lowers `max_rank` one by one: that limit is
    itself on the ladder, so a device at the top keeps what pruning left it.

    Raises:
        RankOutOfRange: the limits leave no rank between them.
    """
    if not 1 <= min_rank <= max_rank:
        raise RankOutOfRange("limits of a rank", got=f"{min_rank} to {max_rank}", expected="1 <= min <= max")
    powers = (2**exponent for exponent in range(max_rank.bit_length()))
    return sorted({min_rank, max_rank, *(rank for rank in powers if min_rank < rank < max_rank)})


def forecast_round(
    cost_model: CostModel,
    step: StepSize,
    *,
    steps: int,
    flops_per_second: float,
    sent_bytes: int | None = None,
) -> Forecast:
    """What one round of `steps` such steps takes, from the bundle's cost model.

    `sent_bytes` is what an update takes, where it is not all of what is trained, in float32.
    """
    adapter_bytes = step.rank * cost_model.adapter_bytes_per_rank
    work = cost_model.flops.at(step) + FLOPS_PER_WRITTEN_BYTE * cost_model.written_bytes.at(step)
    return Forecast(
        PROCESS_BYTES
        + NODE_BYTES * cost_model.graph_nodes
        + cost_model.base_weight_bytes
        + round(LIVE_SHARE * cost_model.peak_live_bytes(step))
        + COPIES_OF_ADAPTER * adapter_bytes,
        steps * work / flops_per_second,
        adapter_bytes + (adapter_bytes if sent_bytes is None else sent_bytes),
    )


def training_rate(capabilities: CapabilityReport, threads: int | None) -> float:
    """Operations per second in training, on `threads` of a measured device's cores or, if None, on all.

    A profile given by hand stands for a device that uses all its cores, whatever simulates it.
    """
    cores = capabilities.cores
    if threads is not None and capabilities.source == "measured":
        cores = min(threads, cores)
    one_core = capabilities.matmul_flops_per_second * TRAINING_EFFICIENCY
    return one_core * (1 + EXTRA_CORE_SHARE * (cores - 1))
