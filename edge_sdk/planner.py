"""From what a device can do to the rank at which it trains."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Final, Literal

from hetlora.errors import DeviceTooSmall, RankOutOfRange
from hetlora.manifest import CostModel, Manifest
from hetlora.messages.device import CapabilityReport, Offer

MIB: Final = 1024 * 1024

# Of the memory that is free now; the rest is for the app around the SDK and for the forecast's error.
MEMORY_SHARE: Final = 0.7
# Resident size of Python, the SDK's libraries and the runtime before they hold a model:
# 81 MiB with Python 3.11 on Linux x86-64.
PROCESS_BYTES: Final = 96 * MIB
# What kernels need for a moment on top of the activations kept for the backward pass: up to 0.33 of them in
# steps of MiniLM from 64 to 2,048 tokens.
WORKSPACE_SHARE: Final = 0.35
# The adapter itself, its gradient, and AdamW's two moments.
COPIES_OF_ADAPTER: Final = 4
# Share of the probe's matmul rate that a whole training step reaches, as normalisation, attention and the
# optimizer do few operations per byte: 0.21 to 0.37 in the same steps, on one core of a busy machine.
TRAINING_EFFICIENCY: Final = 0.2
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
    bound_by: Literal["offer"] | Limit
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

    What limits it: free memory, the round's time, and the traffic that the device allows itself.

    Raises:
        DeviceTooSmall: not even the lowest rank fits; the message says by how much.
    """
    tokens = min(offer.training.batch_size, example_count) * min(
        offer.training.max_tokens, manifest.max_tokens
    )
    budget = _budget(capabilities, offer)
    best: RankChoice | None = None
    for rank in ladder(offer.min_rank, min(offer.max_rank, manifest.adapter.max_rank)):
        forecast = forecast_round(
            manifest.cost_model,
            rank,
            steps=offer.training.steps,
            tokens_per_step=tokens,
            flops_per_second=training_rate(capabilities, threads),
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
        best = RankChoice(rank, "offer", forecast)
    assert best is not None  # a ladder has at least one rung
    return best


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
    cost_model: CostModel, rank: int, *, steps: int, tokens_per_step: int, flops_per_second: float
) -> Forecast:
    """What one round of `steps` steps at `rank` takes, from the bundle's cost model."""
    activation_bytes = tokens_per_step * (
        cost_model.activation_bytes_per_token + rank * cost_model.activation_bytes_per_token_per_rank
    )
    adapter_bytes = rank * cost_model.adapter_bytes_per_rank
    flops = tokens_per_step * (
        cost_model.training_flops_per_token + rank * cost_model.training_flops_per_token_per_rank
    )
    return Forecast(
        PROCESS_BYTES
        + cost_model.base_weight_bytes
        + int(activation_bytes * (1 + WORKSPACE_SHARE))
        + COPIES_OF_ADAPTER * adapter_bytes,
        steps * flops / flops_per_second,
        2 * adapter_bytes,
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
