"""ONNX Runtime: its training build trains an adapter, without its PyTorch wrappers; any build infers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch, Evaluation
from edge_sdk.runtimes.factors import check_trainable, fed_factors, inference_factors, own_shapes
from edge_sdk.runtimes.feeds import Feeds, decoder_feeds, labelled_feeds
from edge_sdk.runtimes.host_training import host_training
from edge_sdk.runtimes.onnx_checkpoint import load_as_checkpoint
from edge_sdk.runtimes.onnx_graph import checked_graph
from edge_sdk.runtimes.onnx_library import (
    batch_refused,
    graph_refused,
    import_training_bindings,
    open_session,
    session_options,
)
from edge_sdk.runtimes.settings import check_learning_rate, check_penalty
from edge_sdk.runtimes.signature import eval_signature, inference_signature, training_signature
from edge_sdk.training.parametrisation import Parametrisation
from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle
from hetlora.graph_names import LOGITS, LOSS, PRUNING_DECAY, PRUNING_PENALTY
from hetlora.tensors import factor_keys, from_tensors


class OnnxRuntime:
    """One adapter being trained over a bundle's frozen base model: a `TrainingRuntime`.

    Modules may have unequal ranks; those of rank 0 are not trained. HetLoRA's penalty acts in each module on
    the ranks from floor(pruning_decay * rank) on. Under a `parametrisation` that is not plain the optimizer's
    graph has no part in the steps. `threads` limits the threads of every kernel; None leaves the choice to
    the library: one a core, which is the most in any case.

    Raises:
        DependencyMissing: no ONNX Runtime that can train is installed.
        SpecMismatch: the adapter is not of the bundle's specification, or cores or frozen factors do not fit
            it.
        RankOutOfRange: every module has rank 0; or graphs are stamped for one rank, and a module has another
            or there are frozen factors.
        SettingsError: `pruning_decay`, `pruning_penalty` or `threads` means nothing.
        BundleInvalid: a graph of the bundle cannot be loaded, takes other inputs than the manifest has, or
            reads another file than the base weights.
    """

    def __init__(
        self,
        bundle: Bundle,
        adapter: Adapter,
        *,
        pruning_decay: float,
        pruning_penalty: float,
        threads: int | None = None,
        parametrisation: Parametrisation | None = None,
    ) -> None:
        check_penalty(pruning_decay=pruning_decay, pruning_penalty=pruning_penalty)
        manifest = bundle.manifest
        check_trainable(manifest.adapter, adapter, manifest.fixed_rank)
        self._bundle, self._threads = bundle, threads
        self._bindings = import_training_bindings()
        self._given = adapter
        self._host = host_training(
            manifest, adapter, parametrisation, pruning_decay=pruning_decay, pruning_penalty=pruning_penalty
        )
        self._state = load_as_checkpoint(self._bindings, self._factors())
        self._penalty = {
            PRUNING_DECAY: np.array(pruning_decay, np.float64),
            PRUNING_PENALTY: np.array(0 if self._host else pruning_penalty, np.float32),
        }
        self._module, self._optimizer = self._open_graphs()

    def train_step(self, batch: Batch, *, learning_rate: float) -> float:
        """Take one AdamW step and return the loss before it, pruning penalty included.

        `batch` holds the manifest's inputs and `labels`, as `edge_sdk.runtimes.feeds.labelled_feeds` has
        them. A loss that is not finite is returned too, and leaves the adapter as it was.

        Raises:
            DataError: an input is missing, has the wrong shape, or holds numbers outside its range.
            SettingsError: a `learning_rate` that is negative or not finite.
        """
        check_learning_rate(learning_rate)
        feeds = {**labelled_feeds(self._bundle.manifest, batch), **self._penalty}
        fetches = self._bindings.OrtValueVector()
        try:
            self._module.train_step([feeds[name] for name in self._module.input_names(True)], fetches)
            loss = float(fetches[0].numpy())
            if self._host is None and math.isfinite(loss):
                self._optimizer.set_learning_rate(learning_rate)
                self._optimizer.optimizer_step()
        except Exception as error:  # the bindings' exceptions share no base class
            raise batch_refused(error) from error
        finally:
            self._module.lazy_reset_grad()
        if self._host is not None:
            loss = self._host.step(loss, self._fed("grad"), learning_rate)
            self._set(self._factors())
        return loss

    def evaluate(self, batch: Batch) -> Evaluation:
        """Score a batch with the adapter as it stands; the loss leaves the pruning penalty out.

        Raises:
            DataError: as in `train_step`.
            BundleInvalid: the eval graph, opened when it is first needed, as when opening.
        """
        manifest = self._bundle.manifest
        feeds, evaluator = {**labelled_feeds(manifest, batch), **self._fed("data")}, self._evaluator
        try:
            loss, *logits = evaluator.run([LOSS] if manifest.generates else [LOSS, LOGITS], feeds)
        except Exception as error:
            raise batch_refused(error) from error
        return Evaluation(loss=float(loss), logits=logits[0] if logits else None)

    def adapter(self) -> Adapter:
        """A copy of the adapter as it stands."""
        if self._host is not None:
            return self._host.numbers.adapter()
        return from_tensors(self._bundle.manifest.adapter, own_shapes(self._fed("data"), self._given))

    def cores(self) -> dict[str, Tensor]:
        """A copy of the cores as they stand, (rank, rank) by module name; none where factors are trained."""
        return {} if self._host is None else self._host.numbers.cores()

    def gradients(self) -> dict[str, Tensor]:
        """Gradients of the last training step by PEFT or core key, of what is trained, float32."""
        if self._host is not None:
            return self._host.gradients()
        return own_shapes(self._fed("grad"), self._given)

    def _factors(self) -> dict[str, Tensor]:
        fixed_rank = self._bundle.manifest.fixed_rank
        if self._host is None:
            return fed_factors(self._given, fixed_rank)
        return self._host.numbers.fed(fixed_rank or 1)

    def _set(self, factors: Mapping[str, Tensor]) -> None:
        bindings = self._bindings
        for key, tensor in factors.items():
            value = bindings.OrtValue.ortvalue_from_numpy(tensor, self._device)
            self._state.get_parameter(key).copy_from(self._state, value)

    def _fed(self, attribute: str) -> dict[str, Tensor]:
        return {
            key: np.array(getattr(self._state.get_parameter(key), attribute).numpy(), dtype=np.float32)
            for name in self._bundle.manifest.adapter.by_name
            for key in factor_keys(name)
        }

    def _open_graphs(self) -> tuple[Any, Any]:
        bindings, manifest = self._bindings, self._bundle.manifest
        training = checked_graph(
            self._bundle, manifest.graphs.training, inputs=training_signature(manifest), outputs=[LOSS]
        )
        optimizing = checked_graph(self._bundle, manifest.graphs.optimizer)
        options = session_options(self._threads)
        try:
            module = bindings.Module(str(training), self._state, None, self._device, options)
            optimizer = bindings.Optimizer(str(optimizing), self._state, self._device, options)
        except Exception as error:
            raise graph_refused(training, error) from error
        return module, optimizer

    @cached_property
    def _device(self) -> Any:
        bindings = self._bindings
        return bindings.OrtDevice(bindings.OrtDevice.cpu(), bindings.OrtDevice.default_memory(), 0)

    @cached_property
    def _evaluator(self) -> Any:
        # A session of its own, opened when first asked for: most devices only train, and it costs memory.
        manifest = self._bundle.manifest
        outputs = [LOSS] if manifest.generates else [LOSS, LOGITS]
        graph = checked_graph(
            self._bundle, manifest.graphs.eval, inputs=eval_signature(manifest), outputs=outputs
        )
        return open_session(graph, self._threads)


class OnnxModel:
    """A bundle's model under one adapter, or untrained where none is given.

    The base weights are mapped from the bundle's file, and an adapter is nothing but input: ranks may be
    unequal or 0, and another adapter can be had for one call. `parametrisation` has what stands beside the
    adapter given here: cores, frozen factors, amplification. Plain `onnxruntime` is enough.

    Raises:
        DependencyMissing: ONNX Runtime is not installed.
        SpecMismatch: the adapter is not of the bundle's specification, or what stands beside it not of it.
        RankOutOfRange: the adapter has a larger rank than the graphs are stamped for.
        SettingsError: `threads` is below 1.
        BundleInvalid: the inference graph cannot be loaded, takes other inputs than the manifest has, or
            reads another file than the base weights.
    """

    def __init__(
        self,
        bundle: Bundle,
        adapter: Adapter | None = None,
        *,
        threads: int | None = None,
        parametrisation: Parametrisation | None = None,
    ) -> None:
        self._manifest = bundle.manifest
        self._factors = self._fed(adapter, parametrisation)
        signature = inference_signature(self._manifest)
        graph = checked_graph(bundle, self._manifest.graphs.inference, inputs=signature, outputs=[LOGITS])
        self._session = open_session(graph, threads)

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        """Logits in float32, (batch, labels) or (batch, tokens, vocabulary), under `adapter` if given.

        `batch` holds the manifest's inputs, and DECODER_INPUT_IDS for a model with a decoder of its own;
        anything else in it is ignored.

        Raises:
            DataError: an input is missing, of the wrong shape, or holds numbers that are no tokens.
            SpecMismatch, RankOutOfRange: as when opening.
        """
        feeds = decoder_feeds(self._manifest, batch)
        factors = self._factors if adapter is None else self._fed(adapter)
        try:
            (logits,) = self._session.run([LOGITS], {**feeds, **factors})
        except Exception as error:  # the bindings' exceptions share no base class
            raise batch_refused(error) from error
        answer: NDArray[np.float32] = logits
        return answer

    def _fed(self, adapter: Adapter | None, how: Parametrisation | None = None) -> Feeds:
        return inference_factors(self._manifest.adapter, adapter, self._manifest.fixed_rank, how)
