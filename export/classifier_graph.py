"""Puts the frozen prototype head and the losses on the encoder's graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from export.encoder_graph import HIDDEN
from export.graph_builder import GraphBuilder
from export.reference import LOGIT_SCALE, PROTOTYPES
from hetlora.adapter import ModuleSpec
from hetlora.graph_names import ATTENTION_MASK, LABELS, LOGITS, LOSS, PRUNING_PENALTY, PRUNING_TAIL
from hetlora.tensors import factor_keys

# sqrt(x) has an infinite slope at zero, and lora_B starts at zero: its gradient would be 0/0. The root of
# this, 1e-6, is far below the norm of any factor that has been trained.
_EPSILON: Final = 1e-12


def add_prototype_head(model: ModelProto, prototypes: NDArray[np.float32]) -> None:
    """Replace the encoder's output by logits (batch, labels): see `export.reference.PrototypeClassifier`."""
    builder = GraphBuilder(model.graph)
    model.graph.initializer.append(numpy_helper.from_array(prototypes, PROTOTYPES))
    mask = builder.node("Cast", [ATTENTION_MASK], "mask", to=TensorProto.FLOAT)
    axis = builder.constant("axis_1", np.array([1]))
    mask_row = builder.node("Unsqueeze", [mask, axis], "mask_row")  # (batch, 1, tokens)
    total = builder.node("MatMul", [mask_row, HIDDEN], "hidden_total")  # (batch, 1, hidden)
    # The sum serves as the mean: the normalisation divides out the number of tokens.
    pooled = builder.node("Squeeze", [total, axis], "pooled")  # (batch, hidden)
    norm = _frobenius_norm(builder, pooled, "pooled", axes=axis)
    embedding = builder.node("Div", [pooled, norm], "embedding")
    builder.node("Gemm", [embedding, PROTOTYPES], LOGITS, transB=1, alpha=LOGIT_SCALE)
    del model.graph.output[:]
    builder.output(LOGITS, ["batch", len(prototypes)])


def add_cross_entropy(graph: GraphProto, output: str = LOSS) -> str:
    """Append the mean cross entropy of the logits against the input `labels`, int64 (batch,)."""
    builder = GraphBuilder(graph)
    labels = builder.input(LABELS, ["batch"], TensorProto.INT64)
    node = builder.node("SoftmaxCrossEntropyLoss", [LOGITS, labels], output, reduction="mean")
    graph.node[-1].output.append("log_probabilities")  # the gradient builder reads it
    return node


def add_pruning_penalty(graph: GraphProto, modules: Sequence[ModuleSpec], rank: int, loss: str) -> None:
    """Append HetLoRA's regulariser: `loss` + penalty * sum ||lora_B[:, c:]||_F * ||lora_A[c:, :]||_F.

    The input `pruning_tail` (rank,) float32 is 1 at the indices from c on and 0 below; `pruning_penalty`
    is a scalar. arXiv 2401.06432, section 3.2.
    """
    builder = GraphBuilder(graph)
    columns = builder.input(PRUNING_TAIL, [rank])
    penalty = builder.input(PRUNING_PENALTY, [])
    rows = builder.node("Unsqueeze", [columns, builder.constant("axis_1", np.array([1]))], "tail_rows")
    products = []
    for module in modules:
        key_A, key_B = factor_keys(module.name)
        tail_A = builder.node("Mul", [key_A, rows], f"{module.name}/tail_A")
        tail_B = builder.node("Mul", [key_B, columns], f"{module.name}/tail_B")
        norms = [_frobenius_norm(builder, tail, tail) for tail in (tail_A, tail_B)]
        products.append(builder.node("Mul", norms, f"{module.name}/tail"))

    def add(left: str, right: str) -> str:  # one by one: Sum has no gradient in ONNX Runtime 1.19
        return builder.node("Add", [left, right], f"{right}/total")

    total = builder.node("Squeeze", [reduce(add, products)], "tail_norm")  # (1, 1) -> ()
    weighted = builder.node("Mul", [total, penalty], "weighted_tail_norm")
    builder.node("Add", [loss, weighted], LOSS)


def _frobenius_norm(builder: GraphBuilder, x: str, name: str, axes: str | None = None) -> str:
    """The norm over all axes or the given ones; they stay as axes of length one."""
    squares = builder.node("Mul", [x, x], f"{name}/squares")
    reduced = [squares] if axes is None else [squares, axes]
    total = builder.node("ReduceSum", reduced, f"{name}/sum", keepdims=1)
    epsilon = builder.constant("epsilon", np.float32(_EPSILON))
    return builder.node("Sqrt", [builder.node("Add", [total, epsilon], f"{name}/positive")], f"{name}/norm")
