"""Classifies with a bundle and an adapter, in an ordinary inference session."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.feeds import Feeds, token_feeds
from edge_sdk.runtimes.onnx_library import batch_refused, open_session
from hetlora.adapter import Adapter, AdapterSpec, initial_adapter
from hetlora.algebra import zero_pad
from hetlora.bundle import Bundle
from hetlora.errors import SpecMismatch
from hetlora.graph_names import LOGITS
from hetlora.tensors import to_tensors


class Classifier:
    """A bundle's model under one adapter, or untrained where none is given.

    The base weights are mapped from the bundle's file, and an adapter is nothing but input: ranks may be
    unequal or 0, and another adapter can be had for one call.

    Raises:
        DependencyMissing: ONNX Runtime is not installed.
        SpecMismatch: the adapter is not of the bundle's specification.
        BundleInvalid: the inference graph cannot be loaded.
    """

    def __init__(self, bundle: Bundle, adapter: Adapter | None = None, *, threads: int | None = None) -> None:
        self._manifest = bundle.manifest
        self._factors = _factor_feeds(self._manifest.adapter, adapter)
        self._session = open_session(bundle.path(self._manifest.graphs.inference), threads)

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        """Logits of (batch, labels) in float32, under `adapter` instead of the classifier's own if given.

        `batch` holds the manifest's inputs, int64 of (batch, tokens); anything else in it is ignored.

        Raises:
            DataError: an input is missing, of the wrong shape, or holds numbers that are no tokens.
            SpecMismatch: the adapter is not of the bundle's specification.
        """
        feeds = token_feeds(self._manifest, batch)
        own = adapter is None
        factors = self._factors if own else _factor_feeds(self._manifest.adapter, adapter)
        try:
            (logits,) = self._session.run([LOGITS], {**feeds, **factors})
        except Exception as error:  # the bindings' exceptions share no base class
            raise batch_refused(error) from error
        answer: NDArray[np.float32] = logits
        return answer


def _factor_feeds(spec: AdapterSpec, adapter: Adapter | None) -> Feeds:
    if adapter is None:
        adapter = initial_adapter(spec, 0, np.random.default_rng(0))
    if adapter.spec != spec:
        raise SpecMismatch("the adapter is not of this bundle's specification")
    # The graph takes one rank for all modules; zero rows and columns change nothing.
    return to_tensors(zero_pad(adapter, max(adapter.rank, 1)))
