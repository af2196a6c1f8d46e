"""Federated averaging of all weights (FedAvg, arXiv 1602.05629), in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.local_training import drawn
from benchmarks.rules.simulation import BATCHES, Setting, cohort_of, lost_of
from benchmarks.tasks.task import Task
from edge_sdk.runtimes.base import Batch
from export.prototype_classifier import load_reference
from export.source.model_folder import load_model
from hetlora.graph_names import IGNORED_LABEL, LABELS

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class FullModel:
    """A task's model in PyTorch, all of whose weights are trained; class prototypes stay."""

    module: nn.Module
    task: Task

    def logits(self, batch: Batch) -> Tensor:
        """Of a classifier (batch, labels), else (batch, tokens, vocabulary); float32."""
        inputs = {name: torch.from_numpy(array) for name, array in batch.items() if name != LABELS}
        answer = self.module(**inputs)
        return answer if isinstance(answer, Tensor) else answer.logits

    def loss(self, batch: Batch) -> Tensor:
        """The mean cross entropy over what counts."""
        logits, labels = self.logits(batch), torch.from_numpy(batch[LABELS])
        if logits.ndim == 3:
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL)

    def score(self) -> float:
        """See `Task.score`."""
        self.module.eval()

        def logits_of(batch: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
            with torch.no_grad():
                found: NDArray[np.float32] = self.logits(dict(batch)).numpy()
            return found

        return self.task.score_logits(logits_of)


def open_full(task: Task) -> FullModel:
    """The model of a task as it was before any training."""
    torch.set_num_threads(1)
    if task.bundle.manifest.labels:
        return FullModel(load_reference(task.bundle, task.model), task)
    return FullModel(load_model(task.model, task.bundle.manifest.task), task)


def full_rounds(setting: Setting, model: FullModel) -> Iterator[int]:
    """Round after round, whose weights `model` has then; answers the bytes that went down and up in it."""
    weights = {name: own.detach().clone() for name, own in model.module.named_parameters()}
    size = sum(4 * own.numel() for own in weights.values())
    round_index = 0
    while True:
        chosen = cohort_of(setting, round_index)
        lost = lost_of(setting, round_index)
        heard = [number for number in chosen if number not in lost]
        total = sum(len(setting.clients[number].examples) for number in heard)
        mean = {name: torch.zeros_like(own) for name, own in weights.items()}
        for number in heard:
            share = len(setting.clients[number].examples) / total
            _load(model, weights)
            _train(setting, model, number, round_index)
            for name, own in model.module.named_parameters():
                mean[name] += share * own.detach()
        weights = mean
        _load(model, weights)
        yield size * (len(chosen) + len(heard))
        round_index += 1


def _load(model: FullModel, weights: Weights) -> None:
    with torch.no_grad():
        for name, own in model.module.named_parameters():
            own.copy_(weights[name])


def _train(setting: Setting, model: FullModel, number: int, round_index: int) -> None:
    """AdamW as the bundle's, without dropout, as the exported graphs have none."""
    training, of_bundle = setting.training, setting.bundle.manifest.optimizer
    optimizer = torch.optim.AdamW(
        model.module.parameters(),
        lr=training.learning_rate,
        betas=(of_bundle.beta1, of_bundle.beta2),
        eps=of_bundle.epsilon,
        weight_decay=of_bundle.weight_decay,
    )
    rng = np.random.default_rng([setting.seed, BATCHES, number, round_index])
    with drawn(setting.clients[number].examples, setting.bundle, training, rng) as batches:
        for _ in range(training.steps):
            optimizer.zero_grad()
            model.loss(next(batches)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
