"""Training with a bundle's own graphs alone, penalty and optimizer among them, as phones do."""

from __future__ import annotations

import numpy as np

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.factors import fed_factors, own_shapes
from edge_sdk.runtimes.feeds import labelled_feeds
from edge_sdk.runtimes.onnx_checkpoint import load_as_checkpoint
from edge_sdk.runtimes.onnx_graph import checked_graph
from edge_sdk.runtimes.onnx_library import import_training_bindings, session_options
from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle
from hetlora.graph_names import PRUNING_DECAY, PRUNING_PENALTY
from hetlora.tensors import from_tensors, to_tensors


class GraphTraining:
    """One adapter, stepped by the optimizer graph from what the training graph says."""

    def __init__(
        self,
        bundle: Bundle,
        adapter: Adapter,
        *,
        pruning_decay: float,
        pruning_penalty: float,
        learning_rate: float = 1e-3,
    ) -> None:
        bindings, manifest = import_training_bindings(), bundle.manifest
        self._bindings, self._bundle, self._given, self._rate = bindings, bundle, adapter, learning_rate
        self._penalty = {
            PRUNING_DECAY: np.array(pruning_decay, np.float64),
            PRUNING_PENALTY: np.array(pruning_penalty, np.float32),
        }
        self._state = load_as_checkpoint(bindings, fed_factors(to_tensors(adapter), manifest.fixed_rank))
        device = bindings.OrtDevice(bindings.OrtDevice.cpu(), bindings.OrtDevice.default_memory(), 0)
        training, optimizing = (
            str(checked_graph(bundle, graph))
            for graph in (manifest.graphs.training, manifest.graphs.optimizer)
        )
        options = session_options(1)
        self._module = bindings.Module(training, self._state, None, device, options)
        self._optimizer = bindings.Optimizer(optimizing, self._state, device, options)
        self._optimizer.set_learning_rate(learning_rate)

    def step(self, batch: Batch) -> float:
        """Take one AdamW step and return the loss before it, pruning penalty included."""
        feeds = {**labelled_feeds(self._bundle.manifest, batch), **self._penalty}
        fetches = self._bindings.OrtValueVector()
        self._module.train_step([feeds[name] for name in self._module.input_names(True)], fetches)
        self._optimizer.optimizer_step()
        self._module.lazy_reset_grad()
        return float(fetches[0].numpy())

    def adapter(self) -> Adapter:
        return from_tensors(self._given.spec, self._fed("data"))

    def gradients(self) -> dict[str, Tensor]:
        return self._fed("grad")

    def _fed(self, attribute: str) -> dict[str, Tensor]:
        own = to_tensors(self._given)
        fed = {key: getattr(self._state.get_parameter(key), attribute).numpy().copy() for key in own}
        return own_shapes(fed, own)
