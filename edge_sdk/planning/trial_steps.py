"""The steps that a trial takes: a bundle under an adapter that nobody keeps, on the device's own examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_sdk.batching.batches import batching_of, draw_batches
from edge_sdk.examples import ExampleStore
from edge_sdk.planning.calibration import stretched
from edge_sdk.planning.forecast import StepPlan
from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.training.trainer import open_trainer
from hetlora.adapter import initial_adapter
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings


def steps_of(
    bundle: Bundle,
    runtime: RuntimeFactory,
    examples: ExampleStore,
    step: StepPlan,
    training: TrainingSettings,
    threads: int | None,
) -> Callable[[], Callable[[], object]]:
    """What loads a bundle under a fresh adapter, and answers what takes a step of it.

    The steps are of one micro-batch of examples, repeated until it is as large as planned.

    Raises:
        NoExamples, DataError, BundleInvalid: see `draw_batches` and `batching_of`.
    """
    batching, rng = batching_of(bundle, training), np.random.default_rng(0)
    drawn = next(
        draw_batches(
            batching.read(examples),
            batching.collate,
            batch_size=step.micro_batch,
            always_full=batching.always_full,
            rng=rng,
        )
    )
    batch = stretched(drawn, bundle.manifest, rows=step.micro_batch, tokens=step.tokens)

    def load() -> Callable[[], object]:
        adapter = initial_adapter(bundle.manifest.adapter, step.rank, rng)
        trainer = open_trainer(runtime, bundle, adapter, training, threads=threads)
        return lambda: trainer.step(batch)

    return load
