"""Builds the gradient graph once and makes its rank symbolic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper
from onnxruntime.training import artifacts, onnxblock  # type: ignore[import-untyped]

from export.classifier_graph import add_cross_entropy, add_pruning_penalty
from export.graph_builder import GraphBuilder
from export.lora_graph import factor_shapes
from export.quiet import quiet_native_code
from hetlora.adapter import AdapterSpec
from hetlora.errors import ModelNotExportable
from hetlora.graph_names import LOSS
from hetlora.manifest import OptimizerInfo

RANK: Final = "rank"
# torch.optim.AdamW's defaults, but for the weight decay: HetLoRA's own penalty is the regulariser.
ADAMW: Final = OptimizerInfo(name="AdamW", beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0)
# Large enough not to be mistaken for an enumeration value, and no usual width is prime.
_MARKERS: Final = (31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
_MAX_AXES: Final = 8


def build_training(forward: ModelProto, spec: AdapterSpec) -> tuple[ModelProto, ModelProto]:
    """The training graph with symbolic rank and the optimizer graph, from a forward graph without weights."""
    marker = _free_marker(forward)
    model = ModelProto()
    model.CopyFrom(forward)
    shapes = factor_shapes(spec.modules, marker)
    for key, (rows, columns) in shapes.items():
        zeros = np.zeros((int(rows), int(columns)), dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(zeros, key))
    cross_entropy = add_cross_entropy(model.graph, "cross_entropy")
    add_pruning_penalty(model.graph, spec.modules, marker, cross_entropy)
    del model.graph.output[:]
    GraphBuilder(model.graph).output(LOSS, [])
    training, optimizer = _differentiate(model, list(shapes))
    _make_rank_symbolic(training, marker)
    return training, optimizer


def _differentiate(model: ModelProto, trainable: list[str]) -> tuple[ModelProto, ModelProto]:
    adamw = onnxblock.optim.AdamW(
        betas=(ADAMW.beta1, ADAMW.beta2), eps=ADAMW.epsilon, weight_decay=ADAMW.weight_decay
    )
    with TemporaryDirectory(prefix="hetlora-") as folder:
        try:
            with quiet_native_code():
                artifacts.generate_artifacts(
                    model, requires_grad=trainable, optimizer=adamw, artifact_directory=folder
                )
        except Exception as error:  # the bindings' exceptions share no base class
            raise ModelNotExportable(
                "no gradient graph can be built for the model",
                got=error,
                expected="operators with a gradient",
            ) from error
        training = onnx.load(Path(folder) / "training_model.onnx")
        optimizer = onnx.load(Path(folder) / "optimizer_model.onnx")
    _as_torch(optimizer)
    return training, optimizer


def _as_torch(optimizer: ModelProto) -> None:
    (node,) = optimizer.graph.node
    for attribute in node.attribute:
        if attribute.name == "adam_mode":
            attribute.i = 0  # epsilon is added after the bias correction, as torch does; 1 adds it before
    # The library numbers its names through the life of the process; the bundle's bytes must not tell.
    node.name = "adamw"
    node.output[0] = optimizer.graph.output[0].name = "updated"


def _make_rank_symbolic(training: ModelProto, marker: int) -> None:
    if marker in _constants(training):
        raise ModelNotExportable(
            "the gradient graph depends on the rank", got=f"a constant {marker}", expected="no such constant"
        )
    del training.graph.value_info[:]
    for value in [*training.graph.input, *training.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value == marker:
                dim.dim_param = RANK


def _free_marker(forward: ModelProto) -> int:
    """A prime that stands for the rank and occurs nowhere else in the graph."""
    taken = set(_constants(forward))
    for value in [*forward.graph.input, *forward.graph.output]:
        taken.update(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return next(prime for prime in _MARKERS if prime not in taken)


def _constants(model: ModelProto) -> Iterator[int]:
    """Every whole number in the graph's attributes and in constants small enough to be shapes."""
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        for attribute in node.attribute:
            yield attribute.i
            yield from attribute.ints
            if attribute.type == AttributeProto.TENSOR:
                tensors.append(attribute.t)
    for tensor in tensors:
        if tensor.data_type == TensorProto.INT64 and sum(tensor.dims) <= _MAX_AXES:
            yield from numpy_helper.to_array(tensor).ravel().tolist()
