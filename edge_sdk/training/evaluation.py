"""Local evaluation: each held-out example once through a model, or as many as there is time for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from edge_sdk.runtimes.base import Batch, Evaluation
from edge_sdk.runtimes.losses import mean_loss
from edge_sdk.training.micro_batches import scored_places
from hetlora.errors import NoExamples, TrainingDiverged
from hetlora.graph_names import LABELS
from hetlora.manifest import Task, generates_text
from hetlora.messages.evaluation import MAX_EXAMPLES, MAX_LOSS, EvaluationReport


class ScoredModel(Protocol):
    """A model under an adapter, to be scored."""

    def evaluate(self, batch: Batch) -> Evaluation:
        """Score a batch."""


def evaluate_locally(
    model: ScoredModel,
    batches: Iterator[tuple[Batch, int]],
    task: Task,
    *,
    max_seconds: float,
    on_batch: Callable[[], object] = lambda: None,
    timer: Callable[[], float] = time.perf_counter,
) -> EvaluationReport:
    """Score batches, at least one, and no further one once `max_seconds` have passed.

    Each batch comes with the number of its examples; rows beyond those fill it up and do not count. Examples
    of a classifier weigh the same, and so do tokens of generated answers. `on_batch` is called before each.

    Raises:
        NoExamples: there is no batch, or no token in one that is scored.
        TrainingDiverged: the loss is no number, or beyond any that means something.
    """
    started = timer()
    examples = right = 0
    losses, weights = [], []
    for batch, count in batches:
        on_batch()
        scored = model.evaluate(batch)
        if scored.logits is None:
            losses.append(scored.loss)
            weights.append(int(scored_places(task, batch[LABELS]).sum()))
        else:
            logits, labels = scored.logits[:count], batch[LABELS][:count]
            losses.append(mean_loss(logits, labels))
            weights.append(count)
            right += int((logits.argmax(axis=-1) == labels).sum())
        examples += count
        if timer() - started >= max_seconds or examples + count > MAX_EXAMPLES:
            break
    if not sum(weights):
        raise NoExamples("this device holds nothing out that can be scored", got=f"{examples} examples")
    loss = sum(own * weight for own, weight in zip(losses, weights, strict=True)) / sum(weights)
    if not (math.isfinite(loss) and loss <= MAX_LOSS):
        raise TrainingDiverged("loss of an evaluation", got=loss, expected=f"up to {MAX_LOSS:g}")
    correct_count = None if generates_text(task) else right
    return EvaluationReport(example_count=examples, loss=max(loss, 0.0), correct_count=correct_count)
