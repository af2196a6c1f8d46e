"""Labels for texts, with a bundle's inference graph and the adapter that a model stands under."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_sdk.batching.tokens import text_encoder
from edge_sdk.runtimes import open_model
from edge_sdk.runtimes.base import LogitsModel
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid


@dataclass(frozen=True, slots=True)
class Classified:
    """The likeliest label of a text, and how likely the model takes it to be, from 0 to 1."""

    label: str
    probability: float


class TextClassifier:
    """Finds the label of one text at a time; use it in one thread at a time.

    Raises:
        BundleInvalid: the bundle classifies no text.
        DependencyMissing: as `edge_sdk.runtimes.open_model`, which is asked if no `model` is given.
    """

    def __init__(
        self, bundle: Bundle, model: LogitsModel | None = None, *, threads: int | None = None
    ) -> None:
        manifest = bundle.manifest
        if manifest.task != "text-classification":
            raise BundleInvalid(
                "the bundle classifies no text", got=manifest.task, expected="text-classification"
            )
        self._labels = manifest.labels
        self._encoder = text_encoder(bundle)
        self._model = model or open_model(bundle, threads=threads)

    def classify(self, text: str, *, adapter: Adapter | None = None) -> Classified:
        """The label of a text, under `adapter` if given; what is longer than the model reads is cut off.

        Raises:
            SpecMismatch: the adapter is not of the bundle's specification.
        """
        logits = self._model.logits(self._encoder.encode([text]), adapter=adapter)[0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        best = int(shares.argmax())
        return Classified(self._labels[best], float(shares[best] / shares.sum()))
