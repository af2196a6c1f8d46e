"""A bundle's graph of gradients in an ordinary session of Python, as phones and pages open it."""

from __future__ import annotations

import numpy as np

from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.runtimes.factors import fed_factors, own_shapes
from edge_sdk.runtimes.onnx_library import open_session
from hetlora.adapter import Tensor
from hetlora.bundle import Bundle
from hetlora.graph_names import LOSS


class GradientGraph:
    """A `TrainingRuntime` over it; only for bundles with files for Android."""

    most_rows = None

    def __init__(self, bundle: Bundle, threads: int) -> None:
        assert bundle.manifest.android is not None
        self._session = open_session(bundle.path(bundle.manifest.android.gradients), threads)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        """The loss, and what the graph answers for each factor; zeros for those that are not trained."""
        fed = fed_factors(factors)
        answers = dict(zip(self._outputs, self._session.run(self._outputs, {**batch, **fed}), strict=True))
        gradients = {key: answers.get(f"{key}_grad", np.zeros_like(own)) for key, own in fed.items()}
        return float(answers[LOSS]), own_shapes(gradients, factors)

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        """Nobody's: the eval graph is the same for all clients."""
        raise NotImplementedError
