"""Reverse-mode differentiation of a forward graph by ONNX Runtime's gradient builder, without its wrappers.

The wrappers of `onnxruntime.training.artifacts` check with the plain ONNX schema, which refuses the fused
operators that train fastest, and import torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import onnx
from onnx import ModelProto
from onnxruntime import SessionOptions  # type: ignore[import-untyped]
from onnxruntime.capi import _pybind_state as bindings  # type: ignore[import-untyped]

from export.graphs.graph_builder import Dims, GraphBuilder
from export.graphs.graph_edit import bypass_identities, drop_dead, scope_of
from export.graphs.microsoft import MICROSOFT, use_microsoft_operators
from export.graphs.shapes import share_shape_vectors, with_shapes
from export.quiet import first_line, quiet_native_code
from hetlora.errors import ModelNotExportable
from hetlora.graph_names import LOSS

TASK_LOSS: Final = "task_loss"  # before the pruning penalty


def simplify(forward: ModelProto) -> ModelProto:
    """The forward graph with shapes inferred, shape arithmetic removed, and fusions that have a gradient.

    Raises:
        ModelNotExportable: shapes that cannot be told, or a graph that ONNX Runtime refuses.
    """
    use_microsoft_operators(forward)
    shaped = with_shapes(forward)
    share_shape_vectors(shaped)
    try:
        with quiet_native_code():
            fused: bytes = bindings.get_optimized_model(shaped.SerializeToString(), set(), SessionOptions())
    except Exception as error:  # the bindings' exceptions share no base class
        raise ModelNotExportable(
            "ONNX Runtime cannot read the model's graph", got=first_line(error), expected="a valid graph"
        ) from error
    return onnx.load_from_string(fused)  # the shapes stay in it


def differentiate(forward: ModelProto, trainable: Mapping[str, Dims]) -> ModelProto:
    """Append the backward pass: outputs are TASK_LOSS and the gradient of each trainable input.

    `forward` has the one output TASK_LOSS, float32 (); every trainable tensor is one of its inputs.

    Raises:
        ModelNotExportable: an operator on the way has no gradient; the message names it and its module.
    """
    keys = set(trainable)
    try:
        with quiet_native_code():
            builder = bindings.GradientGraphBuilder(
                forward.SerializeToString(), {TASK_LOSS}, keys, TASK_LOSS, SessionOptions()
            )
            builder.build()
            model = onnx.load_from_string(builder.get_model())
    except Exception as error:  # the bindings' exceptions share no base class
        raise _no_gradient(error) from error
    missing = sorted(keys - {value.name.removesuffix("_grad") for value in model.graph.output})
    if missing:
        raise ModelNotExportable(
            "a target does not influence the loss", got=missing[0], expected="LoRA factors with a gradient"
        )
    gradients = {gradient_name(key): dims for key, dims in trainable.items()}
    GraphBuilder(model.graph).only_outputs({TASK_LOSS: [], **gradients})
    bypass_identities(model.graph)
    share_shape_vectors(model)
    return model


def gradient_name(tensor: str) -> str:
    """How the builder, and ONNX Runtime's Module, call the gradient of a tensor."""
    return f"{tensor}_grad"


def accumulate_gradients(
    training: ModelProto, trainable: Mapping[str, Dims], gradients: Mapping[str, str]
) -> None:
    """Make the graph what ONNX Runtime's Module runs: each gradient is added to a buffer that it owns.

    `gradients` names the tensor that holds the gradient of each trainable input. The Module knows the buffers
    by their names, and their order is that of the parameters.
    """
    graph = training.graph
    builder = GraphBuilder(graph)
    builder.only_outputs({LOSS: []})
    for key, dims in trainable.items():
        stem = f"{gradient_name(key)}.accumulation"
        builder.input(f"{stem}.buffer", dims)
        builder.node(
            "InPlaceAccumulatorV2",
            [f"{stem}.buffer", gradients[key], "lazy_reset_grad"],
            f"{stem}.out",
            domain=MICROSOFT,
        )
        builder.output(f"{stem}.out", [1], onnx.TensorProto.BOOL)
    builder.input("lazy_reset_grad", [1], onnx.TensorProto.BOOL)
    drop_dead(graph)


def _no_gradient(error: Exception) -> ModelNotExportable:
    text = str(error)
    registered = re.search(r"has not been registered: (\S+)(?: for node (\S+))?", text)
    if registered is None:
        return ModelNotExportable(
            "no gradient graph can be built for the model", got=text, expected="operators with a gradient"
        )
    operator, node = registered.group(1), (registered.group(2) or "")
    return ModelNotExportable(
        f"operator {operator} of module {scope_of(node) or 'unknown'} has no gradient in ONNX Runtime",
        got=node,
        expected="operators that can be differentiated between the targets and the loss",
    )
