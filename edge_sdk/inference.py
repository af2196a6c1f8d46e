"""Logits from a bundle and an adapter, in an ordinary inference session."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.factors import inference_factors
from edge_sdk.runtimes.feeds import Feeds, decoder_feeds
from edge_sdk.runtimes.onnx_library import batch_refused, open_session
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.graph_names import LOGITS


class OnnxModel:
    """A bundle's model under one adapter, or untrained where none is given.

    The base weights are mapped from the bundle's file, and an adapter is nothing but input: ranks may be
    unequal or 0, and another adapter can be had for one call. Plain `onnxruntime` is enough.

    Raises:
        DependencyMissing: ONNX Runtime is not installed.
        SpecMismatch: the adapter is not of the bundle's specification.
        RankOutOfRange: the adapter has a larger rank than the graphs are stamped for.
        BundleInvalid: the inference graph cannot be loaded.
    """

    def __init__(self, bundle: Bundle, adapter: Adapter | None = None, *, threads: int | None = None) -> None:
        self._manifest = bundle.manifest
        self._factors = self._fed(adapter)
        self._session = open_session(bundle.path(self._manifest.graphs.inference), threads)

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

    def _fed(self, adapter: Adapter | None) -> Feeds:
        return inference_factors(self._manifest.adapter, adapter, self._manifest.fixed_rank)
