"""What a trial says of the forecast: which step is worth trying, and what real ones took over it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

import numpy as np

from edge_sdk.planning.forecast import (
    PROCESS_BYTES,
    Correction,
    Forecast,
    StepPlan,
    forecast_round,
    training_rate,
)
from edge_sdk.planning.planner import Planner
from edge_sdk.planning.trial import Trial
from hetlora.errors import DeviceTooSmall
from hetlora.fixed_sizes import fixed_sizes

logger = logging.getLogger(__name__)

# A process may use memory again that it holds already: what it grew by says little below the forecast.
LEAST_MEMORY_RATIO: Final = 0.7
# Beyond these the forecast and the device do not speak of the same thing.
SECONDS_RATIOS: Final = (0.25, 4.0)
# A device whose smallest step is forecast to pass this share of its free memory loads no model to find out:
# the forecasts of peaks were off by 9 % at most.
TRIAL_SHARE: Final = 0.9


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


def trial_forecast(planner: Planner, step: StepPlan) -> Forecast:
    """What a trial of a step takes, which is one micro-batch, as forecast before any correction."""
    rate = training_rate(planner.capabilities, planner.threads)
    tried = replace(step, batch=step.micro_batch)
    return forecast_round(planner.manifest.cost_model, tried, steps=1, flops_per_second=rate)
