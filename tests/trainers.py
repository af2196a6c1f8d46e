"""Trainers over real runtimes, opened in one line."""

from __future__ import annotations

from typing import Any

from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.training.trainer import Trainer, open_trainer
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings


def trainer_of(
    bundle: Bundle,
    adapter: Adapter,
    *,
    runtime: RuntimeFactory = OnnxRuntime,
    threads: int | None = 1,
    parametrisation: Parametrisation | None = None,
    micro_batch: int | None = None,
    **settings: Any,
) -> Trainer:
    """Without a penalty, where none is given; `settings` are those of TrainingSettings."""
    return open_trainer(
        runtime,
        bundle,
        adapter,
        TrainingSettings(**({"pruning_decay": 1.0, "pruning_penalty": 0.0} | settings)),
        threads=threads,
        parametrisation=parametrisation,
        micro_batch=micro_batch,
    )
