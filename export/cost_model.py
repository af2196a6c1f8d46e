"""What one training step costs, read off the shapes of the training graph."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Final

from onnx import ModelProto

from export.gradient import TASK_LOSS
from export.graph_edit import ancestors, reads_of
from export.shapes import ROWS, Shape, known_shapes
from hetlora.adapter import AdapterSpec
from hetlora.manifest import CostModel

_FLOAT_BYTES: Final = 4
_PRODUCTS: Final = ("MatMul", "FusedMatMul")


def cost_model(
    training: ModelProto, matrices: Mapping[str, int], stored_bytes: int, spec: AdapterSpec, max_tokens: int
) -> CostModel:
    """Count a step's floating-point operations and activation bytes per token, for texts of `max_tokens`.

    `matrices` gives the size of each frozen matrix that multiplies activations, P numbers in all. With S
    products per token between two activations (attention):
    - forward 2 P + 2 S; backward 2 P (frozen weights: only the gradient of their input) + 4 S (a gradient
      for both sides): together 4 P + 6 S;
    - LoRA: forward, gradient of the input and gradient of the factor, each 2 (in + out) per unit of rank;
    - activations: the forward tensors that the backward pass reads, all alive at its start. Per unit of
      rank the outputs of each lora_A and their gradients. What a kernel needs for a moment is left out.
    """
    shapes = _sizes(known_shapes(training), max_tokens)
    forward = ancestors(training.graph.node, TASK_LOSS)
    products = sum(
        prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        for node in forward
        if node.op_type in _PRODUCTS
        and node.input[1] not in matrices
        and {node.output[0], node.input[0]} <= shapes.keys()
    )
    made = {name for node in forward for name in node.output}
    names = {node.name for node in forward}
    down = {f"{module.name}/lora_A" for module in spec.modules}
    read = {
        name for node in training.graph.node if node.name not in names for name in reads_of(node) & made
    } - down
    kept = sum(prod(shapes[name]) for name in read & shapes.keys())
    return CostModel(
        training_flops_per_token=4.0 * sum(matrices.values()) + 6.0 * products / max_tokens,
        training_flops_per_token_per_rank=6.0 * spec.parameters_per_rank,
        activation_bytes_per_token=_FLOAT_BYTES * kept / max_tokens,
        activation_bytes_per_token_per_rank=2.0 * _FLOAT_BYTES * len(spec.modules),
        base_weight_bytes=stored_bytes,
        adapter_bytes_per_rank=_FLOAT_BYTES * spec.parameters_per_rank,
    )


def _sizes(shapes: Mapping[str, Shape], max_tokens: int) -> dict[str, list[int]]:
    """The shapes for one text of `max_tokens`; those that hold another symbol are left out."""
    symbols = {"batch": 1, "tokens": max_tokens, "target_tokens": max_tokens, ROWS: max_tokens}

    def size(dim: int | str) -> int:
        if isinstance(dim, int):
            return dim
        return prod(int(part) if part.isdigit() else symbols[part] for part in dim.split("*"))

    found = {}
    for name, shape in shapes.items():
        try:
            found[name] = [size(dim) for dim in shape]
        except KeyError:
            continue
    return found
