"""HetLoRA's self-pruning regulariser, added to the loss and to the gradients of a finished training graph.

penalty * sum over modules of ||lora_B[:, c:]||_F ||lora_A[c:, :]||_F with c = floor(decay * rank): arXiv
2401.06432, section 3.2. It depends on the factors alone, so its gradient is written down instead of derived,
and all of it stands in one branch that a step with penalty 0 never enters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import GraphProto, TensorProto

from export.graphs.graph_builder import GraphBuilder
from hetlora.adapter import ModuleSpec
from hetlora.algebra import FLOOR_SLACK, NORM_EPSILON
from hetlora.graph_names import LOSS, PRUNING_DECAY, PRUNING_PENALTY
from hetlora.tensors import factor_keys


def add_pruning_penalty(
    graph: GraphProto, modules: Sequence[ModuleSpec], gradients: Mapping[str, str], *, loss: str
) -> dict[str, str]:
    """Append LOSS = `loss` + penalty; returns the tensor that holds each factor's whole gradient.

    New inputs: PRUNING_DECAY float64 (), PRUNING_PENALTY float32 ().
    """
    builder = GraphBuilder(graph)
    builder.input(PRUNING_DECAY, [], TensorProto.DOUBLE)
    builder.input(PRUNING_PENALTY, [])
    pressed = {key: f"{gradient}/pressed" for key, gradient in gradients.items()}
    zero = builder.constant("penalty/zero", np.float32(0))
    is_on = builder.node("Greater", [PRUNING_PENALTY, zero], "penalty/is_on")
    branches = {"then_branch": _on(modules, gradients, loss), "else_branch": _off(gradients, loss)}
    builder.node("If", [is_on], LOSS, *pressed.values(), **branches)
    return pressed


def _off(gradients: Mapping[str, str], loss: str) -> GraphProto:
    graph = GraphProto(name="without_penalty")
    builder = GraphBuilder(graph)
    for name in (loss, *gradients.values()):
        builder.node("Identity", [name], f"off/{name}")
        builder.output(f"off/{name}", None)
    return graph


def _on(modules: Sequence[ModuleSpec], gradients: Mapping[str, str], loss: str) -> GraphProto:
    graph = GraphProto(name="with_penalty")
    b = GraphBuilder(graph)
    b.constant("on/epsilon", np.float32(NORM_EPSILON))
    b.constant("on/rounding", np.float64(FLOOR_SLACK))
    b.constant("on/first", np.int64(0))
    b.constant("on/step", np.int64(1))
    total = b.constant("on/total", np.float32(0))
    outputs = []
    for module in modules:
        key_A, key_B = factor_keys(module.name)
        columns = _tail_mask(b, key_A, module.name)
        rows = b.node(
            "Unsqueeze", [columns, b.constant("on/axis_1", np.array([1]))], f"on/{module.name}/rows"
        )
        tail_A = b.node("Mul", [key_A, rows], f"on/{module.name}/tail_A")
        tail_B = b.node("Mul", [key_B, columns], f"on/{module.name}/tail_B")
        norm_A, norm_B = _norm(b, tail_A), _norm(b, tail_B)
        product = b.node("Mul", [norm_A, norm_B], f"on/{module.name}/product")
        total = b.node("Add", [total, product], f"on/{module.name}/total")
        outputs.append(_pressed(b, gradients[key_A], tail_A, own=norm_A, other=norm_B))
        outputs.append(_pressed(b, gradients[key_B], tail_B, own=norm_B, other=norm_A))
    weighted = b.node("Mul", [total, PRUNING_PENALTY], "on/weighted")
    for name in (b.node("Add", [loss, weighted], "on/loss"), *outputs):
        b.output(name, None)
    return graph


def _tail_mask(b: GraphBuilder, key_A: str, module: str) -> str:
    """float32 (rank,): 1 from floor(decay * rank) on, else 0; the rank is that of the factor as it comes."""
    name = f"on/{module}"
    size = b.node("Shape", [key_A], f"{name}/size", start=0, end=1)
    rank = b.node("Squeeze", [size], f"{name}/rank")
    exact = b.node("Cast", [rank], f"{name}/rank_float64", to=TensorProto.DOUBLE)
    product = b.node("Mul", [exact, PRUNING_DECAY], f"{name}/kept")
    kept = b.node("Floor", [b.node("Add", [product, "on/rounding"], f"{name}/raised")], f"{name}/floor")
    whole = b.node("Cast", [kept], f"{name}/keep", to=TensorProto.INT64)
    indices = b.node("Range", ["on/first", rank, "on/step"], f"{name}/indices")
    is_tail = b.node("GreaterOrEqual", [indices, whole], f"{name}/is_tail")
    return b.node("Cast", [is_tail], f"{name}/columns", to=TensorProto.FLOAT)


def _norm(b: GraphBuilder, tail: str) -> str:
    squares = b.node("Mul", [tail, tail], f"{tail}/squares")
    total = b.node("ReduceSum", [squares], f"{tail}/sum", keepdims=0)
    return b.node("Sqrt", [b.node("Add", [total, "on/epsilon"], f"{tail}/positive")], f"{tail}/norm")


def _pressed(b: GraphBuilder, gradient: str, tail: str, *, own: str, other: str) -> str:
    """gradient + penalty * other norm * tail / own norm."""
    ratio = b.node("Div", [b.node("Mul", [other, PRUNING_PENALTY], f"{tail}/force"), own], f"{tail}/ratio")
    return b.node("Add", [gradient, b.node("Mul", [tail, ratio], f"{tail}/slope")], f"{tail}/pressed")
