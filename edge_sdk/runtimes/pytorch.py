"""PyTorch with transformers and PEFT trains and infers: the reference, and for boards with a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.runtimes.feeds import decoder_feeds, labelled_feeds
from edge_sdk.runtimes.model import FactorModel
from edge_sdk.runtimes.pytorch_network import PytorchNetwork
from hetlora.adapter import Tensor
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

    name: Final = "pytorch"
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


class PytorchModel(FactorModel):
    """A bundle's model under finished factors, or untrained where none are given.

    Raises:
        SpecMismatch, NonFiniteValues: as `FactorModel`.
        DependencyMissing, SettingsError, BundleInvalid: as `PytorchRuntime`.
    """

    def __init__(self, bundle: Bundle, factors: Factors | None = None, *, threads: int | None = None) -> None:
        super().__init__(bundle.manifest, factors)
        self._network = PytorchNetwork(bundle, threads=threads)

    def logits_of(self, batch: Batch, factors: Factors) -> NDArray[np.float32]:
        """The same under factors as the network takes them, by PEFT key."""
        return self._network.logits(decoder_feeds(self._manifest, batch), factors)
