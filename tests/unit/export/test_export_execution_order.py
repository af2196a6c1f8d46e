"""Where a node lies in the file decides when ONNX Runtime runs it, and so what a step keeps in memory."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime import InferenceSession, SessionOptions
from parity import export_family
from tiny_families import LAYERS, write_tiny_family

from export.training.gradient import gradient_name
from hetlora.bundle import Bundle
from hetlora.tensors import factor_keys


def _as_run(bundle: Bundle, scratch: Path) -> list[str]:
    """The outputs of all nodes in the order in which a session runs them."""
    options = SessionOptions()
    options.optimized_model_filepath = str(scratch / "as_run.onnx")
    InferenceSession(bundle.path(bundle.manifest.graphs.training), options)
    model = onnx.load(scratch / "as_run.onnx", load_external_data=False)
    return [name for node in model.graph.node for name in node.output]


def test_gradients_of_a_layer_are_made_before_the_backward_pass_leaves_it(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "llama")
    bundle = export_family("llama", model, tmp_path / "bundle")
    order = _as_run(bundle, tmp_path)
    last, first = (
        [
            order.index(gradient_name(key))
            for name in bundle.manifest.adapter.by_name
            if f"layers.{layer}." in name
            for key in factor_keys(name)
        ]
        for layer in (LAYERS - 1, 0)
    )
    # Kept for later, the last layer's gradients would come after those of the first.
    assert len(last) == len(first) == 4
    assert max(last) < min(first)
