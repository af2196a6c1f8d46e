"""What the models of all runtimes share: the factors that they stand under."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch, Factors
from edge_sdk.runtimes.factors import check_adapter, checked_factors, fed_factors, zero_factors
from hetlora.adapter import Adapter
from hetlora.manifest import Manifest
from hetlora.tensors import to_tensors


class FactorModel(ABC):
    """A bundle's model under finished factors, or untrained where none are given: a `LogitsModel`.

    Factors, by PEFT key, are nothing but input: ranks may be unequal or 0, and an adapter can be had for one
    call. With `fixed_rank` the graphs are stamped for that one.

    Raises:
        SpecMismatch: the factors are not of the modules of the bundle's specification.
        RankOutOfRange: a module has a larger rank than the graphs are stamped for.
        NonFiniteValues: a factor holds NaN or infinity.
    """

    def __init__(self, manifest: Manifest, factors: Factors | None, *, fixed_rank: int | None = None) -> None:
        spec = manifest.adapter
        if factors is None:
            factors = zero_factors(spec, dict.fromkeys(spec.by_name, 0))
        self._manifest, self._fixed_rank = manifest, fixed_rank
        self._factors = fed_factors(checked_factors(spec, factors), fixed_rank)

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        """Logits in float32, (batch, labels) or (batch, tokens, vocabulary), under `adapter` if given.

        `batch` holds the manifest's inputs, and DECODER_INPUT_IDS for a model with a decoder of its own;
        anything else in it is ignored.

        Raises:
            DataError: an input is missing, of the wrong shape, or holds numbers that are no tokens.
            MemoryError: there is no memory for the batch.
            SpecMismatch: the adapter is not of the bundle's specification.
            RankOutOfRange: as when opening.
        """
        if adapter is None:
            return self.logits_of(batch, self._factors)
        check_adapter(self._manifest.adapter, adapter)
        return self.logits_of(batch, fed_factors(to_tensors(adapter), self._fixed_rank))

    @abstractmethod
    def logits_of(self, batch: Batch, factors: Factors) -> NDArray[np.float32]:
        """The same under factors as the runtime takes them, all of them and in order."""
