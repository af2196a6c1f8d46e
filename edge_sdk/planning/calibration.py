"""Real steps beside their forecast: what a bundle takes of this device, before it promises to train it."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import psutil

from edge_sdk.planning.forecast import (
    PROCESS_BYTES,
    Correction,
    Forecast,
    StepPlan,
    forecast_round,
    training_rate,
)
from edge_sdk.planning.peak_memory import peak_memory_bytes, reset_peak_memory
from edge_sdk.planning.planner import Planner
from edge_sdk.probe.power import measure_processor_joules, measure_watts
from edge_sdk.probe.system import System
from edge_sdk.runtimes.base import Batch
from hetlora.errors import DeviceTooSmall
from hetlora.fixed_sizes import fixed_sizes
from hetlora.graph_names import ATTENTION_MASK
from hetlora.manifest import Manifest, reads_images

logger = logging.getLogger(__name__)

# A process may use memory again that it holds already: what it grew by says little below the forecast.
LEAST_MEMORY_RATIO: Final = 0.7
# Beyond these the forecast and the device do not speak of the same thing.
SECONDS_RATIOS: Final = (0.25, 4.0)
# A device whose smallest step is forecast to pass this share of its free memory loads no model to find out:
# the forecasts of peaks were off by 9 % at most.
TRIAL_SHARE: Final = 0.9
# The first step makes the runtime's plan of its memory. Of those after it the fastest counts, as the fast
# bursts of a probe do: other work only slows a step down.
LEAST_STEPS: Final = 2
MOST_STEPS: Final = 20
LEAST_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Trial:
    """What real steps took: the time of one, by how much the process grew, and the power; None is unknown."""

    seconds: float
    grown_bytes: int | None
    watts: float | None


def run_trial(
    open_step: Callable[[], Callable[[], object]],
    *,
    check: Callable[[], None] = lambda: None,
    system: System | None = None,
    timer: Callable[[], float] = time.perf_counter,
) -> Trial:
    """Open a model and take some steps; `check` is called before each, and may raise what ends the trial.

    `open_step` loads the model, with its runtime's library in memory already, and answers what takes a step.
    """
    system = system or System()
    knows_peak = reset_peak_memory()
    held_bytes = psutil.Process().memory_info().rss
    step = open_step()
    check()
    step()
    drawn, seconds, sampled = measure_processor_joules(system), list[float](), list[float | None]()
    while len(seconds) < LEAST_STEPS or (sum(seconds) < LEAST_SECONDS and len(seconds) < MOST_STEPS):
        check()
        started = timer()
        step()
        seconds.append(timer() - started)
        sampled.append(measure_watts(system))
    return Trial(
        min(seconds),
        peak_memory_bytes() - held_bytes if knows_peak else None,
        _watts(sampled, drawn, measure_processor_joules(system), sum(seconds)),
    )


def correction_of(trial: Trial, forecast: Forecast) -> Correction:
    """What a trial took over the uncorrected forecast of it."""
    memory = 1.0
    if trial.grown_bytes is not None:
        # The process counts on both sides: what it grows by at any first step, threads and caches, is of the
        # size of a small model.
        memory = (PROCESS_BYTES + trial.grown_bytes) / forecast.peak_bytes
    seconds = trial.seconds / forecast.step_seconds
    if not SECONDS_RATIOS[0] <= seconds <= SECONDS_RATIOS[1]:
        logger.warning("event=probe_distrusted seconds_over_forecast=%.2f", seconds)
    return Correction(max(memory, LEAST_MEMORY_RATIO), float(np.clip(seconds, *SECONDS_RATIOS)), trial.watts)


def plan_trial(planner: Planner) -> StepPlan:
    """The step to try: the one that would be trained or, where none is forecast to fit, the smallest.

    Only where a trial could change the answer: were the model as fast as no correction goes beyond, and could
    it have nearly all of the memory, the device would train.

    Raises:
        DeviceTooSmall: it would not even so; nothing has been loaded.
        RankOutOfRange, BundleInvalid: see `Planner`.
    """
    try:
        return planner.choose().step
    except DeviceTooSmall as error:
        fastest = replace(planner.correction, seconds=SECONDS_RATIOS[0])
        lenient = replace(planner, memory_share=TRIAL_SHARE, correction=fastest)
        try:
            lenient.choose()
        except DeviceTooSmall:
            raise error from None
        smallest = next(lenient.attempts(lenient.lengths()[-1])).step
        fixed = fixed_sizes(planner.manifest).rows
        return smallest if fixed else replace(smallest, micro_batch=1)


def trial_step(step: StepPlan) -> StepPlan:
    """What a trial takes of a step that was planned: one micro-batch."""
    return replace(step, batch=step.micro_batch)


def trial_forecast(planner: Planner, step: StepPlan) -> Forecast:
    """What a trial is expected to take, before any correction."""
    rate = training_rate(planner.capabilities, planner.threads)
    return forecast_round(planner.manifest.cost_model, trial_step(step), steps=1, flops_per_second=rate)


def stretched(batch: Batch, manifest: Manifest, *, rows: int, tokens: int) -> Batch:
    """A batch with its examples repeated until it has all rows and, of text, no token is padding.

    So a trial takes what the longest examples would.
    """
    is_text = not reads_images(manifest.task)
    sizes = {
        name: (rows, tokens) if is_text and array.ndim == 2 else (rows, *array.shape[1:])
        for name, array in batch.items()
    }
    return {
        name: np.ones(sizes[name], array.dtype) if name == ATTENTION_MASK else np.resize(array, sizes[name])
        for name, array in batch.items()
    }


def _watts(
    sampled: list[float | None], drawn_before: float | None, drawn_after: float | None, seconds: float
) -> float | None:
    """The whole device's power where a sensor tells it, and else the processor's."""
    told = [watts for watts in sampled if watts is not None]
    if told:
        return statistics.mean(told)
    if drawn_before is None or drawn_after is None or drawn_after <= drawn_before:
        return None
    return (drawn_after - drawn_before) / seconds
