"""The steps that a trial takes: a bundle under an adapter that nobody keeps, on the device's own examples."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from edge_sdk.batching.batches import batching_of, draw_batches
from edge_sdk.examples import ExampleStore
from edge_sdk.planning.calibration import stretched
from edge_sdk.planning.forecast import StepPlan
from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.training.trainer import open_trainer
from hetlora.adapter import initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import TrainingDiverged
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

    The steps are of one micro-batch of examples, repeated until it is as large as planned. They leave the
    adapter where it is, and a loss that says that training leads nowhere ends none of them: a trial may take
    more steps than the run, of other batches, and is of memory and time alone.

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
        still = training.model_copy(update={"learning_rate": 0.0})
        trainer = open_trainer(runtime, bundle, adapter, still, threads=threads)

        def take() -> None:
            with suppress(TrainingDiverged):
                trainer.step(batch)

        return take

    return load
