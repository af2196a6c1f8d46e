"""What one training step costs, read off the shapes of the graphs."""

from __future__ import annotations

from math import prod
from typing import Final

from onnx import ModelProto, TensorProto
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference  # type: ignore[import-untyped]

from export.base_weights import Weights
from export.graph_builder import GraphBuilder
from export.lora_graph import factor_shapes
from hetlora.adapter import AdapterSpec
from hetlora.manifest import CostModel

_FLOAT_BYTES: Final = 4

Shapes = dict[str, list[int]]


def cost_model(
    forward: ModelProto, training: ModelProto, weights: Weights, spec: AdapterSpec, max_tokens: int
) -> CostModel:
    """Count a step's floating-point operations and activation bytes per token, for texts of `max_tokens`.

    With P numbers in the frozen matrices and S products per token between two activations (attention):
    - forward 2 P + 2 S; backward 2 P (frozen weights: only the gradient of their input) + 4 S (a gradient
      for both sides): together 4 P + 6 S;
    - LoRA: forward, gradient of the input and gradient of the factor, each 2 (in + out) per unit of rank;
    - activations: the forward tensors that the backward pass reads, all alive at its start. Per unit of
      rank the outputs of each lora_A and their gradients. What a kernel needs for a moment is left out.
    """
    shapes = _shapes(forward, spec, max_tokens)
    matmuls = [node for node in forward.graph.node if node.op_type == "MatMul"]
    frozen = sum(weights[node.input[1]].size for node in matmuls if node.input[1] in weights)
    products = sum(
        prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        for node in matmuls
        if node.input[1] not in weights
    )
    down = {f"{module.name}/lora_A" for module in spec.modules}
    kept = sum(prod(shapes[name]) for name in _read_by_backward(training) & shapes.keys() - down)
    return CostModel(
        training_flops_per_token=4.0 * frozen + 6.0 * products / max_tokens,
        training_flops_per_token_per_rank=6.0 * spec.parameters_per_rank,
        activation_bytes_per_token=_FLOAT_BYTES * kept / max_tokens,
        activation_bytes_per_token_per_rank=2.0 * _FLOAT_BYTES * len(spec.modules),
        base_weight_bytes=sum(weight.nbytes for weight in weights.values()),
        adapter_bytes_per_rank=_FLOAT_BYTES * spec.parameters_per_rank,
    )


def _shapes(forward: ModelProto, spec: AdapterSpec, max_tokens: int) -> Shapes:
    """The shape of every float tensor that a node makes of one text of `max_tokens` tokens."""
    model = ModelProto()
    model.CopyFrom(forward)
    builder = GraphBuilder(model.graph)
    for key, shape in factor_shapes(spec.modules, rank=1).items():
        builder.input(key, shape)
    sizes = {"batch": 1, "tokens": max_tokens}
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    inferred = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in inferred.graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _read_by_backward(training: ModelProto) -> set[str]:
    """Tensors that some node reads which depends on the gradient of the loss."""
    backward: set[str] = set()
    read: set[str] = set()
    for node in training.graph.node:  # the builder keeps them in topological order
        if node.op_type == "SoftmaxCrossEntropyLossGrad" or backward.intersection(node.input):
            backward.update(node.output)
            read.update(node.input)
    return read - backward
