"""Opens a bundle's graph of gradients as a phone or a page does: an ordinary session, steps on the host."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.factors import fed_factors
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.tensors import to_tensors


def open_gradients(bundle: Bundle, optimized_to: str = "") -> Any:
    """The session; `optimized_to` is where it writes the graph that it makes of the file's."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = optimized_to
    options.log_severity_level = 3
    assert bundle.manifest.web is not None
    return InferenceSession(str(bundle.path(bundle.manifest.web.gradients)), options)


def run_gradients(bundle: Bundle, batch: Batch, adapter: Adapter) -> dict[str, NDArray[Any]]:
    """Its answers by name."""
    session = open_gradients(bundle)
    outputs = [value.name for value in session.get_outputs()]
    feeds = {**batch, **fed_factors(to_tensors(adapter))}
    return dict(zip(outputs, session.run(outputs, feeds), strict=True))
