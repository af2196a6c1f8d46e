"""A store of examples, scored under a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from edge_sdk.batching.batches import batching_of, each_once
from edge_sdk.examples import ExampleStore
from edge_sdk.runtimes.base import Batch
from edge_sdk.training.evaluation import ScoredModel, evaluate_locally
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings
from hetlora.messages.evaluation import EvaluationReport


def score(
    model: ScoredModel,
    store: ExampleStore,
    bundle: Bundle,
    settings: TrainingSettings,
    *,
    longest_tokens: int | None = None,
    seed: int,
    max_seconds: float,
    may_go_on: Callable[[], object],
    ids: Sequence[int] | None = None,
    most_examples: int | None = None,
    timer: Callable[[], float] = time.perf_counter,
) -> EvaluationReport:
    """Score each example once in the batches of a run, in an order that follows from `seed`.

    It ends with the batch in which `max_seconds` are over, or `most_examples` are scored; with `ids` it is of
    these examples alone. So one that has as many as another before it, of the same seed and ids, is of the
    very same examples. `longest_tokens` is as in `batching_of`. `may_go_on` is called before each batch.

    Raises:
        BundleInvalid: see `batching_of`.
        NoExamples, TrainingDiverged: see `evaluate_locally`.
    """
    batching = batching_of(bundle, settings, longest_tokens=longest_tokens)
    batches = each_once(batching.read(store), batching, rng=np.random.default_rng(seed), ids=ids)
    return evaluate_locally(
        model,
        _up_to(batches, most_examples),
        bundle.manifest.task,
        max_seconds=max_seconds,
        on_batch=may_go_on,
        timer=timer,
    )


def _up_to(batches: Iterator[tuple[Batch, int]], most: int | None) -> Iterator[tuple[Batch, int]]:
    """Whole batches until they have `most` examples."""
    seen = 0
    for batch, count in batches:
        yield batch, count
        seen += count
        if most is not None and seen >= most:
            return
