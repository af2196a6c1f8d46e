"""Real steps of a bundle, under an adapter that nobody keeps: their time, their memory and the power."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import psutil

from edge_sdk.batching.batches import batching_of, draw_batches
from edge_sdk.examples import ExampleStore
from edge_sdk.planning.forecast import StepPlan
from edge_sdk.probe.peak_memory import peak_memory_bytes, reset_peak_memory
from edge_sdk.probe.power import measure_processor_joules, measure_watts
from edge_sdk.probe.system import System
from edge_sdk.runtimes.base import Batch, RuntimeFactory
from edge_sdk.training.trainer import open_trainer
from hetlora.adapter import initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import TrainingDiverged
from hetlora.graph_names import ATTENTION_MASK
from hetlora.manifest import Manifest, reads_images
from hetlora.messages.device import TrainingSettings

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


def steps_of(
    bundle: Bundle,
    runtime: RuntimeFactory,
    examples: ExampleStore,
    step: StepPlan,
    training: TrainingSettings,
    threads: int | None,
) -> Callable[[], Callable[[], object]]:
    """What loads a bundle under a fresh adapter, and answers what takes a step of it.

    The steps are of one micro-batch of examples, repeated until it is as large as planned. They leave the
    adapter where it is, and a loss that says that training leads nowhere ends none of them: a trial may take
    more steps than the run, of other batches, and is of memory and time alone.

    Raises:
        NoExamples, DataError, BundleInvalid: see `draw_batches` and `batching_of`.
    """
    batching = replace(batching_of(bundle, training), batch_size=step.micro_batch)
    rng = np.random.default_rng(0)
    drawn = next(draw_batches(batching.read(examples), batching, rng=rng))
    batch = stretched(drawn, bundle.manifest, rows=step.micro_batch, tokens=step.tokens)

    def load() -> Callable[[], object]:
        adapter = initial_adapter(bundle.manifest.adapter, step.rank, rng)
        still = training.model_copy(update={"learning_rate": 0.0})
        trainer = open_trainer(runtime, bundle, adapter, still, threads=threads)

        def take() -> None:
            with suppress(TrainingDiverged):
                trainer.step(batch)

        return take

    return load


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
