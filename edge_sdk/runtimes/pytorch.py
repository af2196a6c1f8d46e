"""PyTorch with transformers and PEFT trains and infers: the reference, and for boards with a GPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.runtimes.factors import inference_factors
from edge_sdk.runtimes.feeds import decoder_feeds, labelled_feeds
from edge_sdk.runtimes.pytorch_network import PytorchNetwork
from edge_sdk.training.parametrisation import Parametrisation
from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle


class PytorchRuntime:
    """The frozen base model of a bundle, which tells gradients: a `TrainingRuntime`.

    `ranks` by module are those of the factors to come; others may come all the same. `threads` limits the
    threads of PyTorch in the whole process.

    Raises:
        DependencyMissing: PyTorch, transformers or PEFT is not installed.
        SettingsError: `threads` is below 1.
        BundleInvalid: the bundle has no files for PyTorch, or such as no model can be built from.
    """

    most_rows: int | None = None  # a batch of any size

    def __init__(self, bundle: Bundle, ranks: Mapping[str, int], *, threads: int | None = None) -> None:
        self._manifest = bundle.manifest
        self._network = PytorchNetwork(bundle, threads=threads)
        self._network.take_ranks(ranks)

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        """The mean loss of a batch without the penalty, and its gradients, float32 by PEFT key.

        Raises:
            DataError: an input is missing, has the wrong shape, or holds numbers outside its range.
            MemoryError: there is no memory for the batch.
        """
        return self._network.gradients(labelled_feeds(self._manifest, batch), factors)

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        """Score a batch under these factors; errors as `gradients`."""
        loss, logits = self._network.evaluate(labelled_feeds(self._manifest, batch), factors)
        return Evaluation(loss=loss, logits=None if self._manifest.generates else logits)


class PytorchModel:
    """A bundle's model under one adapter, or untrained where none is given: a `LogitsModel`.

    An adapter is nothing but input: ranks may be unequal or 0, and another one can be had for one call.
    `parametrisation` has what stands beside the adapter given here: cores, frozen factors, amplification.

    Raises:
        SpecMismatch: the adapter is not of the bundle's specification, or what stands beside it not of it.
        DependencyMissing, SettingsError, BundleInvalid: as `PytorchRuntime`.
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
        self._factors = inference_factors(self._manifest.adapter, adapter, how=parametrisation)
        self._network = PytorchNetwork(bundle, threads=threads)

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        """Logits in float32, (batch, labels) or (batch, tokens, vocabulary), under `adapter` if given.

        `batch` holds the manifest's inputs, and DECODER_INPUT_IDS for a model with a decoder of its own;
        anything else in it is ignored.

        Raises:
            DataError: an input is missing, of the wrong shape, or holds numbers that are no tokens.
            SpecMismatch: the adapter is not of the bundle's specification.
        """
        factors = self._factors if adapter is None else inference_factors(self._manifest.adapter, adapter)
        return self._network.logits(decoder_feeds(self._manifest, batch), factors)
