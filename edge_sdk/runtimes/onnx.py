"""ONNX Runtime: its training build trains an adapter, without its PyTorch wrappers; any build infers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.runtimes.factors import check_stamped_ranks, fed_factors, own_shapes, zero_factors
from edge_sdk.runtimes.feeds import decoder_feeds, labelled_feeds
from edge_sdk.runtimes.model import FactorModel
from edge_sdk.runtimes.onnx_checkpoint import load_as_checkpoint
from edge_sdk.runtimes.onnx_graph import checked_graph
from edge_sdk.runtimes.onnx_library import (
    batch_refused,
    graph_refused,
    import_training_bindings,
    memory_for_adapter,
    open_session,
    session_options,
)
from edge_sdk.runtimes.signature import NO_PENALTY, eval_signature, inference_signature, training_signature
from hetlora.adapter import Tensor
from hetlora.bundle import Bundle
from hetlora.errors import SpecMismatch
from hetlora.fixed_sizes import fixed_sizes
from hetlora.graph_names import LOGITS, LOSS
from hetlora.tensors import factor_keys


class OnnxRuntime:
    """The frozen base model of a bundle, which tells gradients: a `TrainingRuntime`.

    `threads` limits the threads of every kernel; None leaves the choice to the library: one a core, which is
    the most in any case.

    Raises:
        DependencyMissing: no ONNX Runtime that can train is installed.
        RankOutOfRange: graphs are stamped for one rank, and a module has another.
        SettingsError: `threads` is below 1.
        BundleInvalid: a graph of the bundle cannot be loaded, takes other inputs than the manifest has, or
            reads another file than the base weights.
        MemoryError: there is no memory for it.
    """

    name: Final = "onnx"

    def __init__(self, bundle: Bundle, ranks: Mapping[str, int], *, threads: int | None = None) -> None:
        manifest = bundle.manifest
        check_stamped_ranks(ranks, manifest.fixed_rank)
        self._bundle, self._threads = bundle, threads
        self._bindings = import_training_bindings()
        # A graph that may take any rank learns it from the factors that it is opened with.
        opened_with = fed_factors(zero_factors(manifest.adapter, ranks), manifest.fixed_rank)
        trained = {key for name in manifest.trained for key in factor_keys(name)}
        with memory_for_adapter():
            self._state = load_as_checkpoint(
                self._bindings, {key: own for key, own in opened_with.items() if key in trained}
            )
            self._parameters = {key: self._state.get_parameter(key) for key in opened_with if key in trained}
            # Where the graph reads them: these arrays are views, not copies.
            self._places = {key: parameter.data.numpy() for key, parameter in self._parameters.items()}
        self._module = self._open_module()

    @property
    def most_rows(self) -> int | None:
        """The rows that the graphs are stamped for, if they are."""
        return fixed_sizes(self._bundle.manifest).rows

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        """The mean loss of a batch, without a penalty, and its gradients by PEFT key; 0 of what is untrained.

        Raises:
            DataError: an input is missing, has the wrong shape, or holds numbers outside its range.
            SpecMismatch: the factors are of other ranks than the graph was opened with.
            MemoryError: there is no memory for the batch or the adapter.
        """
        manifest = self._bundle.manifest
        fed = fed_factors(factors, manifest.fixed_rank)
        feeds = {**labelled_feeds(manifest, batch), **NO_PENALTY, **fed}
        with memory_for_adapter():
            self._set(fed)
        fetches = self._bindings.OrtValueVector()
        try:
            self._module.train_step([feeds[name] for name in self._module.input_names(True)], fetches)
        except Exception as error:  # the bindings' exceptions share no base class
            raise batch_refused(error) from error
        finally:
            self._module.lazy_reset_grad()
        with memory_for_adapter():
            answers = {
                key: self._parameters[key].grad.numpy() if key in self._parameters else np.zeros_like(own)
                for key, own in fed.items()
            }
        return float(fetches[0].numpy()), own_shapes(answers, factors)

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        """Score a batch under these factors.

        Raises:
            DataError, MemoryError: as in `gradients`.
            BundleInvalid: the eval graph, opened when it is first needed, as when opening.
        """
        manifest = self._bundle.manifest
        feeds = {**labelled_feeds(manifest, batch), **fed_factors(factors, manifest.fixed_rank)}
        evaluator = self._evaluator
        try:
            loss, *logits = evaluator.run([LOSS] if manifest.generates else [LOSS, LOGITS], feeds)
        except Exception as error:
            raise batch_refused(error) from error
        return Evaluation(loss=float(loss), logits=logits[0] if logits else None)

    def _set(self, fed: Mapping[str, Tensor]) -> None:
        for key, place in self._places.items():
            if fed[key].shape != place.shape:  # numpy would repeat a rank of one as often as there is room
                raise SpecMismatch(f"shape of {key}", got=fed[key].shape, expected=place.shape)
            np.copyto(place, fed[key])

    def _open_module(self) -> Any:
        manifest = self._bundle.manifest
        graph = checked_graph(
            self._bundle, manifest.graphs.training, inputs=training_signature(manifest), outputs=[LOSS]
        )
        options = session_options(self._threads)
        try:
            return self._bindings.Module(str(graph), self._state, None, self._device, options)
        except Exception as error:
            raise graph_refused(graph, error) from error

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


class OnnxModel(FactorModel):
    """A bundle's model under finished factors, or untrained where none are given.

    The base weights are mapped from the bundle's file. Plain `onnxruntime` is enough.

    Raises:
        DependencyMissing: ONNX Runtime is not installed.
        SpecMismatch, RankOutOfRange, NonFiniteValues: as `FactorModel`.
        SettingsError: `threads` is below 1.
        BundleInvalid: the inference graph cannot be loaded, takes other inputs than the manifest has, or
            reads another file than the base weights.
    """

    def __init__(self, bundle: Bundle, factors: Factors | None = None, *, threads: int | None = None) -> None:
        manifest = bundle.manifest
        super().__init__(manifest, factors, fixed_rank=manifest.fixed_rank)
        signature = inference_signature(manifest)
        graph = checked_graph(bundle, manifest.graphs.inference, inputs=signature, outputs=[LOGITS])
        self._session = open_session(graph, threads)

    def logits_of(self, batch: Batch, factors: Factors) -> NDArray[np.float32]:
        """The same under factors as the graph takes them, by PEFT key."""
        feeds = decoder_feeds(self._manifest, batch)
        try:
            (logits,) = self._session.run([LOGITS], {**feeds, **factors})
        except Exception as error:  # the bindings' exceptions share no base class
            raise batch_refused(error) from error
        answer: NDArray[np.float32] = logits
        return answer
