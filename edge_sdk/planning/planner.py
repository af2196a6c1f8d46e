"""From what a device can do to how it trains: rank, micro-batch, steps, and tokens of a text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final, Literal

from edge_sdk.planning.forecast import (
    UNCORRECTED,
    Correction,
    Forecast,
    StepPlan,
    forecast_round,
    training_rate,
)
from edge_sdk.planning.ladder import lengths, ranks_of, rows_at_a_time
from edge_sdk.units import MIB
from hetlora.errors import DeviceTooSmall, NoExamples
from hetlora.fixed_sizes import fixed_sizes
from hetlora.manifest import Manifest, reads_images
from hetlora.masking.vector import size_of
from hetlora.masking.wire import max_masked_bytes
from hetlora.messages.device import CapabilityReport, Offer
from hetlora.rounding import bytes_per_rank

# Of the memory that is free now; the rest is for the app around the SDK and for the forecast's error.
MEMORY_SHARE: Final = 0.7
# Of the steps that are asked: a device that cannot take so many in the round's time has too little to say.
LEAST_SHARE_OF_STEPS: Final = 0.5
# Real steps that took so many times the memory that was forecast leave no forecast to rely on.
MOST_TIMES_THE_MEMORY: Final = 4.0

Limit = Literal["memory", "time", "traffic"]
Bound = Literal["offer", "bundle"] | Limit


@dataclass(frozen=True, slots=True)
class RankChoice:
    """How to train, and what kept the rank from being higher.

    Longer texts than `max_tokens` are cut. The forecast is of `step`, and has as many of these as the round's
    time is expected to allow.
    """

    rank: int
    bound_by: Bound
    forecast: Forecast
    step: StepPlan
    max_tokens: int

    @property
    def micro_batch(self) -> int:
        """How many rows of a batch go through the model at a time."""
        return self.step.micro_batch


@dataclass(frozen=True, slots=True)
class Attempt:
    """What training at one rank would take, after all concessions, and the limit that it passes still."""

    rank: int
    step: StepPlan
    forecast: Forecast
    passes: Limit | None


@dataclass(frozen=True, slots=True)
class Planner:
    """The arithmetic of one offer on one device.

    Concessions come in this order, each only as far as it must (docs/adr/0024-planning.md): micro-batches
    and steps are given up before rank, and rank before tokens.

    Args:
        capabilities: of the device, less what is to stay free for others.
        example_count: that the device trains on; batches are no larger.
        threads: that training may use, None for all.
        correction: what real steps of this bundle took over what was forecast.
        memory_share: of the free memory, how much a forecast may take.
        longest_tokens: of the device's examples, those that are scored included; None is unknown, and as many
            as the offer allows.
        bundle_bytes: what is missing of the bundle.
        scores: whether the round is scored on what is held out.

    Raises:
        BundleInvalid: inputs of the manifest that no batch has.
    """

    capabilities: CapabilityReport
    manifest: Manifest
    offer: Offer
    example_count: int
    threads: int | None = None
    correction: Correction = UNCORRECTED
    memory_share: float = MEMORY_SHARE
    longest_tokens: int | None = None
    bundle_bytes: int = 0
    scores: bool = False

    def choose(self) -> RankChoice:
        """The highest rank that fits the device.

        A bundle stamped for one rank leaves that or nothing. A frozen adapter is not in the forecast: only
        the plan tells of it, which is made for the rank chosen here.

        Raises:
            DeviceTooSmall: not even the lowest rank fits, and the message says by how much; or real steps
                took far more memory than was forecast.
            RankOutOfRange: the offer leaves no rank, or not the one that the bundle is stamped for.
            NoExamples: there are none, or none any more.
        """
        self._check_correction()
        for max_tokens in self.lengths():
            attempts = list(self.attempts(max_tokens))
            fitting = list(takewhile(lambda attempt: attempt.passes is None, attempts))
            if fitting:
                return self._choice(fitting[-1], attempts[len(fitting) :], max_tokens)
        raise self._too_small(attempts[0])

    def _check_correction(self) -> None:
        if self.correction.memory > MOST_TIMES_THE_MEMORY:
            raise DeviceTooSmall(
                "a step took far more memory than was forecast",
                got=f"{self.correction.memory:.1f} times as much",
                expected=f"up to {MOST_TIMES_THE_MEMORY:g} times",
            )

    def lengths(self) -> list[int]:
        """To how many tokens texts may be cut, the most first: what was asked, and what the run permits."""
        stamped = fixed_sizes(self.manifest).tokens
        training = self.offer.training
        asked = stamped or min(training.max_tokens, self.manifest.max_tokens)
        if stamped or training.min_tokens is None or reads_images(self.manifest.task):
            return [asked]
        return lengths(asked, min(training.min_tokens, asked))

    def attempts(self, max_tokens: int) -> Iterator[Attempt]:
        """What each rank of the offer would take, the lowest first.

        Raises:
            RankOutOfRange: see `choose`.
        """
        for rank in ranks_of(self.manifest, self.offer):
            yield self._attempt(rank, max_tokens)

    def rows_for(self, rank: int, tokens: int) -> int:
        """The most rows at a time that there is memory for, at this rank and with texts of so many tokens.

        Raises:
            DeviceTooSmall: there is none for the fewest.
            BundleInvalid: see the class.
        """
        attempt = self._within_memory(rank, tokens)
        if attempt.passes is not None:
            raise self._too_small(attempt)
        return attempt.step.micro_batch

    def _attempt(self, rank: int, max_tokens: int) -> Attempt:
        attempt = self._within_memory(rank, max_tokens)
        return attempt if attempt.passes is not None else self._within_time(attempt)

    def _within_memory(self, rank: int, max_tokens: int) -> Attempt:
        if self.example_count < 1:  # they may expire while a bundle is fetched
            raise NoExamples("this device holds no examples", expected="at least one to plan for")
        sizes = fixed_sizes(self.manifest)
        batch = sizes.rows or min(self.offer.training.batch_size, self.example_count)
        tokens = sizes.tokens or min(max_tokens, self.longest_tokens or max_tokens)
        if reads_images(self.manifest.task):
            tokens = 1  # what a picture takes is counted by the picture, ranks included
        for rows in rows_at_a_time(batch) if sizes.rows is None else [batch]:
            step = StepPlan(batch, tokens, self.offer.trained_rank or rank, rows)
            forecast = self._forecast(rank, step)
            if forecast.peak_bytes <= self.memory_bytes:
                return Attempt(rank, step, forecast, None)
        return Attempt(rank, step, forecast, "memory")

    def _within_time(self, attempt: Attempt) -> Attempt:
        asked, forecast = self.offer.training.steps, attempt.forecast
        possible = math.floor(min(asked, self.offer.round_seconds / forecast.step_seconds))
        least = math.ceil(LEAST_SHARE_OF_STEPS * asked)
        forecast = replace(forecast, steps=max(possible, least))
        traffic = self.capabilities.traffic_bytes_per_round
        passes: Limit | None = None
        if possible < least:
            passes = "time"
        elif traffic is not None and forecast.traffic_bytes > traffic:
            passes = "traffic"
        return replace(attempt, forecast=forecast, passes=passes)

    def _forecast(self, rank: int, step: StepPlan) -> Forecast:
        training = self.offer.training
        return forecast_round(
            self.manifest.cost_model,
            step,
            steps=training.steps,
            flops_per_second=training_rate(self.capabilities, self.threads),
            upload_bytes=self._upload_bytes(rank),
            bundle_bytes=self.bundle_bytes,
            correction=self.correction,
            scores=self.scores,
            proximal=training.proximal > 0,
        )

    def _upload_bytes(self, rank: int) -> int:
        spec, masking = self.manifest.adapter, self.offer.masking
        if masking is not None:  # every rank's update is as wide as the run
            return max_masked_bytes(size_of(spec, masking.rank))
        costs, precision = self.manifest.cost_model, self.offer.training.upload_precision
        return rank * bytes_per_rank(spec, costs.adapter_bytes_per_rank, precision)

    @property
    def memory_bytes(self) -> int:
        """What a forecast of the peak may come to."""
        return int(self.memory_share * self.capabilities.memory_available_bytes)

    def _choice(self, best: Attempt, beyond: Sequence[Attempt], max_tokens: int) -> RankChoice:
        unbound: Bound = "offer" if self.manifest.fixed_rank is None else "bundle"
        bound_by = (beyond[0].passes if beyond else None) or unbound
        return RankChoice(best.rank, bound_by, best.forecast, best.step, max_tokens)

    def _too_small(self, lowest: Attempt) -> DeviceTooSmall:
        forecast, traffic = lowest.forecast, self.capabilities.traffic_bytes_per_round
        got, expected = {
            "memory": (_in_mib(self.memory_bytes), f"{_in_mib(forecast.peak_bytes)} to train in"),
            "time": (f"{self.offer.round_seconds:.1f} s", f"{forecast.seconds:.1f} s of training"),
            "traffic": (f"{traffic} bytes", f"{forecast.traffic_bytes} bytes of traffic"),
            None: ("all of it", "no more"),
        }[lowest.passes]
        return DeviceTooSmall(
            f"not even rank {lowest.rank} fits this device, for lack of {lowest.passes}",
            got=got,
            expected=expected,
        )


def _in_mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.0f} MiB"
