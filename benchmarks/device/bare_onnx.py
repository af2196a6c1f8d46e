"""ONNX Runtime's own training loop over a bundle's graphs: what any SDK around it is measured against."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.runtimes.onnx_library import import_training_bindings, session_options
from hetlora.bundle import Bundle
from hetlora.graph_names import PRUNING_DECAY, PRUNING_PENALTY
from hetlora.messages.device import TrainingSettings


class BareSteps:
    """The library's `Module` and its own `Optimizer` (AdamW), with the penalty of a run within the graph.

    Nothing is checked, kept or told. The module is the one that `runtime` has opened: of two sessions of one
    model in one process, the same steps take up to a fiftieth longer in the one than in the other, by where
    their memory happens to lie. What its steps make of the parameters, the runtime writes over at its next.

    Raises:
        DependencyMissing: no ONNX Runtime that can train is installed.
    """

    def __init__(
        self, runtime: OnnxRuntime, bundle: Bundle, training: TrainingSettings, *, threads: int | None
    ) -> None:
        bindings = import_training_bindings()
        device = bindings.OrtDevice(bindings.OrtDevice.cpu(), bindings.OrtDevice.default_memory(), 0)
        self._module, state = runtime._module, runtime._state
        graph = bundle.folder / bundle.manifest.graphs.optimizer
        self._optimizer = bindings.Optimizer(str(graph), state, device, session_options(threads))
        self._optimizer.set_learning_rate(training.learning_rate)
        self._fetches = bindings.OrtValueVector
        self._names = self._module.input_names(True)
        self._settings: dict[str, Any] = {
            PRUNING_DECAY: np.array(training.pruning_decay, np.float64),
            PRUNING_PENALTY: np.array(training.pruning_penalty, np.float32),
        }

    def step(self, batch: Batch) -> float:
        """One step over a batch; the loss before it."""
        feeds, fetches = {**batch, **self._settings}, self._fetches()
        self._module.train_step([feeds[name] for name in self._names], fetches)
        self._optimizer.optimizer_step()
        self._module.lazy_reset_grad()
        return float(fetches[0].numpy())
