"""Puts the frozen prototype head on an encoder's graph, and the loss of a classifier on its logits."""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto

from export.graphs.graph_builder import GraphBuilder
from export.source.tracing import FEATURES
from hetlora.graph_names import ATTENTION_MASK, LABELS, LENGTH_EPSILON, LOGIT_SCALE, LOGITS

PROTOTYPES: Final = "prototypes"  # the initializer's name in every graph


def add_prototype_head(model: ModelProto, classes: int, hidden_size: int) -> None:
    """Replace FEATURES by LOGITS (batch, classes): see export/prototype_classifier.py.

    The prototypes become a weight: the input PROTOTYPES, float32 (classes, hidden_size).
    """
    b = GraphBuilder(model.graph)
    b.input(PROTOTYPES, [classes, hidden_size])
    mask = b.node("Cast", [ATTENTION_MASK], "mask", to=TensorProto.FLOAT)
    axis = b.constant("axis_1", np.array([1]))
    mask_row = b.node("Unsqueeze", [mask, axis], "mask_row")  # (batch, 1, tokens)
    total = b.node("MatMul", [mask_row, FEATURES], "hidden_total")  # (batch, 1, hidden)
    # The sum serves as the mean: the normalisation divides out the number of tokens.
    pooled = b.node("Squeeze", [total, axis], "pooled")  # (batch, hidden)
    squares = b.node("Mul", [pooled, pooled], "pooled/squares")
    length = b.node("ReduceSum", [squares, axis], "pooled/sum", keepdims=1)
    epsilon = b.constant("epsilon", np.float32(LENGTH_EPSILON))
    norm = b.node("Sqrt", [b.node("Add", [length, epsilon], "pooled/positive")], "pooled/norm")
    embedding = b.node("Div", [pooled, norm], "embedding")
    b.node("Gemm", [embedding, PROTOTYPES], LOGITS, transB=1, alpha=LOGIT_SCALE)
    b.only_outputs({LOGITS: ["batch", classes]})


def add_cross_entropy(graph: GraphProto, output: str) -> None:
    """Append `output`: the mean cross entropy of LOGITS against the input LABELS, int64 (batch,)."""
    b = GraphBuilder(graph)
    labels = b.input(LABELS, ["batch"], TensorProto.INT64)
    # The gradient builder reads the second output.
    b.node("SoftmaxCrossEntropyLoss", [LOGITS, labels], output, "log_probabilities", reduction="mean")
    b.output(output, [])
