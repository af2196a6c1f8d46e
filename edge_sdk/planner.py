"""From what a device can do to the rank at which it trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from hetlora.errors import DeviceTooSmall, RankOutOfRange
from hetlora.manifest import CostModel, Manifest
from hetlora.messages.device import CapabilityReport, Offer

MIB: Final = 1024 * 1024

# Of the memory that is free now; the rest is for the app around the SDK and for what the forecast misses.
MEMORY_SHARE: Final = 0.5
# Resident size of Python, numpy and the runtime before they hold a model.
PROCESS_BYTES: Final = 160 * MIB
# The adapter itself, its gradient, and AdamW's two moments.
COPIES_OF_ADAPTER: Final = 4
# Share of the probe's matmul rate that a whole training step reaches: normalisation, attention and the
# optimizer do few operations per byte.
TRAINING_EFFICIENCY: Final = 0.3


@dataclass(frozen=True, slots=True)
class Forecast:
    """What local training at some rank is expected to take."""

    peak_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RankChoice:
    """The rank to train at, and what kept it from being higher."""

    rank: int
    bound_by: Literal["offer", "memory", "time"]
    forecast_peak_bytes: int
    forecast_seconds: float


def choose_rank(
    capabilities: CapabilityReport,
    manifest: Manifest,
    offer: Offer,
    *,
    example_count: int,
    threads: int | None = None,
) -> RankChoice:
    """The highest rank of the offer's ladder that fits the device's memory and the round's time.

    Raises:
        DeviceTooSmall: not even the lowest rank fits; the message says by how much.
    """
    tokens = min(offer.training.batch_size, example_count) * min(
        offer.training.max_tokens, manifest.max_tokens
    )
    memory_bytes = int(MEMORY_SHARE * capabilities.memory_available_bytes)
    best: RankChoice | None = None
    for rank in ladder(offer.min_rank, min(offer.max_rank, manifest.adapter.max_rank)):
        forecast = forecast_training(
            manifest.cost_model,
            rank,
            steps=offer.training.steps,
            tokens_per_step=tokens,
            flops_per_second=training_rate(capabilities, threads),
        )
        limit = _limit_passed(forecast, memory_bytes, offer.round_seconds)
        if limit is not None and best is None:
            raise DeviceTooSmall(
                f"not even rank {rank} fits this device, for lack of {limit}",
                got=f"{memory_bytes // MIB} MiB to train in, {offer.round_seconds:.0f} s",
                expected=f"{-(-forecast.peak_bytes // MIB)} MiB, {forecast.seconds:.0f} s",
            )
        if limit is not None and best is not None:
            return replace(best, bound_by=limit)
        best = RankChoice(rank, "offer", forecast.peak_bytes, forecast.seconds)
    assert best is not None  # a ladder has at least one rung
    return best


def _limit_passed(
    forecast: Forecast, memory_bytes: int, round_seconds: float
) -> Literal["memory", "time"] | None:
    if forecast.peak_bytes > memory_bytes:
        return "memory"
    return "time" if forecast.seconds > round_seconds else None


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


def forecast_training(
    cost_model: CostModel, rank: int, *, steps: int, tokens_per_step: int, flops_per_second: float
) -> Forecast:
    """Peak memory and duration of `steps` steps, from the bundle's cost model."""
    activation_bytes = tokens_per_step * (
        cost_model.activation_bytes_per_token + rank * cost_model.activation_bytes_per_token_per_rank
    )
    adapter_bytes = COPIES_OF_ADAPTER * rank * cost_model.adapter_bytes_per_rank
    flops = tokens_per_step * (
        cost_model.training_flops_per_token + rank * cost_model.training_flops_per_token_per_rank
    )
    return Forecast(
        PROCESS_BYTES + cost_model.base_weight_bytes + int(activation_bytes) + adapter_bytes,
        steps * flops / flops_per_second,
    )


def training_rate(capabilities: CapabilityReport, threads: int | None) -> float:
    """Operations per second in training, on `threads` of the cores or, if None, on all."""
    share = 1.0 if threads is None else min(threads, capabilities.cores) / capabilities.cores
    return capabilities.matmul_flops_per_second * share * TRAINING_EFFICIENCY
