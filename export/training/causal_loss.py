"""The language-model loss, chunk by chunk: logits of more than one chunk never exist at the same time.

The gradient of the mean cross entropy with respect to the hidden states is known in closed form, so it is
computed in the forward pass beside the loss. The gradient builder only ever sees `surrogate = sum(hidden *
gradient)`, whose derivative is that gradient; afterwards the graph input `gradient` is replaced by the nodes
that compute it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import copy_of, drop_dead, replace_nodes
from export.graphs.output_head import OutputHead
from export.graphs.shapes import ROWS
from export.training.gradient import TASK_LOSS
from hetlora.graph_names import IGNORED_LABEL, LABELS

HIDDEN_ROWS: Final = "head/hidden_rows"  # float32 (batch * tokens, hidden)
_GRADIENT: Final = "head/gradient"
# 32 MiB of logits: 128 to 256 rows of usual vocabularies, enough for matrix products at full speed.
_CHUNK_NUMBERS: Final = 8 * 2**20


def most_chunk_rows(head: OutputHead) -> int:
    """Of how many rows at most the logits exist at the same time."""
    return max(1, _CHUNK_NUMBERS // head.vocabulary)


def expose_rows(model: ModelProto, head: OutputHead) -> None:
    """Let HIDDEN_ROWS be the graph's one output, and cut off what made the logits."""
    builder = GraphBuilder(model.graph)
    width = builder.constant("head/row_shape", np.array([-1, head.hidden_size]))
    builder.node("Reshape", [head.hidden, width], HIDDEN_ROWS)
    del model.graph.output[:]
    builder.output(HIDDEN_ROWS, None)
    drop_dead(model.graph)


def add_surrogate(model: ModelProto, head: OutputHead) -> None:
    """Replace the outputs of the graph by the surrogate loss."""
    expose_rows(model, head)
    builder = GraphBuilder(model.graph)
    builder.input(_GRADIENT, [ROWS, head.hidden_size])
    product = builder.node("Mul", [HIDDEN_ROWS, _GRADIENT], "head/products")
    builder.node("ReduceSum", [product], TASK_LOSS, keepdims=0)
    del model.graph.output[:]
    builder.output(TASK_LOSS, [])


def replace_surrogate(training: ModelProto, head: OutputHead, *, shift: bool) -> None:
    """Compute the loss and the gradient where the built graph has the surrogate."""
    graph = training.graph
    gradient = _surrogate_gradient(graph)
    surrogate = {TASK_LOSS, "head/products", gradient}
    kept = [copy_of(node) for node in graph.node if not surrogate.intersection(node.output)]
    at = 1 + next(i for i, node in enumerate(kept) if HIDDEN_ROWS in node.output)
    replace_nodes(graph, kept[:at])
    add_chunked_loss(graph, head, shift=shift, loss=TASK_LOSS, gradient=gradient)
    graph.node.extend(kept[at:])
    inputs = [copy_of(value) for value in graph.input if value.name != _GRADIENT]
    del graph.input[:]
    graph.input.extend(inputs)


def _surrogate_gradient(graph: GraphProto) -> str:
    """What the builder made as gradient of the hidden rows: the output of the other reader of `gradient`."""
    (node,) = (node for node in graph.node if _GRADIENT in node.input and "head/products" not in node.output)
    return str(node.output[0])


def add_chunked_loss(
    graph: GraphProto, head: OutputHead, *, shift: bool, loss: str, gradient: str | None = None
) -> None:
    """Append `loss`, the mean cross entropy over the labels that are not IGNORED_LABEL.

    With `shift`, the label of a position is the next token, as language models are trained. Rows without a
    label are left out before any logits are made. `gradient` names the gradient of the loss with respect to
    HIDDEN_ROWS, or is None where only the loss is wanted.
    """
    b = GraphBuilder(graph)
    inputs = {value.name for value in graph.input}
    if LABELS not in inputs:  # a decoder with a text of its own has read them already
        b.input(LABELS, ["batch", "tokens"], TensorProto.INT64)
    if head.weight not in inputs:  # nothing else reads it, as it is not tied to the embeddings
        b.input(head.weight, [head.vocabulary, head.hidden_size])
    zero, one = b.constant("head/0", np.array([0])), b.constant("head/1", np.array([1]))
    minus_one, ignored = (
        b.constant("head/-1", np.array([-1])),
        b.constant("head/ignored", np.int64(IGNORED_LABEL)),
    )
    labels = _shifted_labels(b, one, ignored) if shift else LABELS
    flat = b.node("Reshape", [labels, minus_one], "head/flat_labels")
    is_label = b.node("Not", [b.node("Equal", [flat, ignored], "head/is_ignored")], "head/is_label")
    places = b.node("NonZero", [is_label], "head/places_row")
    places = b.node("Reshape", [places, minus_one], "head/places")
    hidden = b.node("Gather", [HIDDEN_ROWS, places], "head/labelled_rows")
    labels = b.node("Gather", [flat, places], "head/row_labels")
    count = b.node("Shape", [labels], "head/count")
    rows = b.node("Max", [count, one], "head/rows")  # no label at all: one row of padding, and loss 0
    chunks = _ceil_div(b, rows, most_chunk_rows(head), "head/chunks")
    size = _ceil_div(b, rows, chunks, "head/chunk_rows")
    missing = b.node("Sub", [b.node("Mul", [chunks, size], "head/padded"), count], "head/missing")
    pads = b.node("Concat", [zero, zero, missing, zero], "head/hidden_pads", axis=0)
    hidden = b.node("Pad", [hidden, pads], "head/padded_rows")
    pads = b.node("Concat", [zero, missing], "head/label_pads", axis=0)
    labels = b.node("Pad", [labels, pads], "head/padded_labels")  # zeros, whose share is multiplied away
    ones = b.node("Expand", [b.constant("head/1.0", np.float32(1)), count], "head/ones")
    weights = b.node("Pad", [ones, pads], "head/label_weights")
    width = b.constant("head/width", np.array([head.hidden_size]))
    by_chunk = b.node("Concat", [chunks, size], "head/by_chunk", axis=0)
    by_chunk_wide = b.node("Concat", [by_chunk, width], "head/by_chunk_wide", axis=0)
    scanned = [
        b.node("Reshape", [hidden, by_chunk_wide], "head/hidden_chunks"),
        b.node("Reshape", [labels, by_chunk], "head/label_chunks"),
        b.node("Reshape", [weights, by_chunk], "head/weight_chunks"),
    ]
    body = _chunk(head, with_gradient=gradient is not None)
    total = b.node(
        "Scan", [b.constant("head/0.0", np.float32(0)), *scanned], "head/total", body=body, num_scan_inputs=3
    )
    divisor = b.node(
        "Squeeze", [b.node("Cast", [rows], "head/rows_float", to=TensorProto.FLOAT)], "head/divisor"
    )
    if gradient is not None:
        next(node for node in graph.node if node.op_type == "Scan").output.append("head/gradient_chunks")
        flat_shape = b.node("Concat", [minus_one, width], "head/flat_shape", axis=0)
        all_rows = b.node("Reshape", ["head/gradient_chunks", flat_shape], "head/padded_gradient")
        own_rows = b.node("Slice", [all_rows, zero, count], "head/labelled_gradient")
        own_rows = b.node("Div", [own_rows, divisor], "head/mean_gradient")
        zeros = b.node("ConstantOfShape", [b.node("Shape", [HIDDEN_ROWS], "head/rows_shape")], "head/zeros")
        column = b.constant("head/column", np.array([-1, 1]))
        b.node("ScatterND", [zeros, b.node("Reshape", [places, column], "head/at"), own_rows], gradient)
    b.node("Div", [total, divisor], loss)


def _shifted_labels(b: GraphBuilder, one: str, ignored: str) -> str:
    end = b.constant("head/end", np.array([np.iinfo(np.int64).max]))
    following = b.node("Slice", [LABELS, one, end, one], "head/following")
    pads = b.constant("head/one_column", np.array([0, 0, 0, 1]))
    return b.node("Pad", [following, pads, ignored], "head/next_labels")


def _ceil_div(b: GraphBuilder, numerator: str, denominator: str | int, name: str) -> str:
    if isinstance(denominator, int):
        denominator = b.constant(f"{name}/denominator", np.array([denominator]))
    less = b.node("Sub", [denominator, "head/1"], f"{name}/less")
    return b.node("Div", [b.node("Add", [numerator, less], f"{name}/raised"), denominator], name)


def _chunk(head: OutputHead, *, with_gradient: bool) -> GraphProto:
    """One chunk: state `total` (), rows (n, hidden), labels and weights (n,) -> total, gradient (n, hidden).

    log p[label] = logit[label] - max - log sum exp(logit - max), and the largest softmax is 1 / that sum. The
    gradient is (softmax - onehot) W, where onehot W is a row of W.
    """
    graph = GraphProto(name="chunk")
    b = GraphBuilder(graph)
    total = b.input("total_before", [])
    rows, labels = b.input("rows", ["n", head.hidden_size]), b.input("labels", ["n"], TensorProto.INT64)
    weights = b.input("weights", ["n"])
    raw = b.node("FusedMatMul", [rows, head.weight], "raw", transB=1, domain="com.microsoft")
    logits, slope = (raw, None) if head.softcap is None else _softcapped(b, raw, head.softcap)
    axis = b.constant("axis", np.array([1]))
    columns = b.node("Unsqueeze", [labels, axis], "columns")
    own = b.node("GatherElements", [logits, columns], "own", axis=1)
    largest = b.node("ReduceMax", [logits, axis], "largest", keepdims=1)
    softmax = b.node("Softmax", [logits], "softmax", axis=-1)
    top = b.node("Log", [b.node("ReduceMax", [softmax, axis], "top", keepdims=1)], "log_top")
    losses = b.node("Sub", [b.node("Sub", [largest, top], "log_sum"), own], "losses_column")
    losses = b.node("Mul", [b.node("Squeeze", [losses, axis], "losses"), weights], "weighted_losses")
    b.node("Add", [total, b.node("ReduceSum", [losses], "chunk_total", keepdims=0)], "total_after")
    b.output("total_after", [])
    if with_gradient:
        _add_chunk_gradient(b, head, softmax, columns, slope)
    _prefix_names(graph, keep=head.weight)
    return graph


def _prefix_names(graph: GraphProto, *, keep: str) -> None:
    """A body may not reuse a name of the graph around it; `keep` is read from there."""

    def prefixed(name: str) -> str:
        return name if name == keep else f"chunk/{name}"

    for node in graph.node:
        node.name = prefixed(node.name)
        for names in (node.input, node.output):
            names[:] = [prefixed(name) for name in names]
    for values in (graph.input, graph.output, graph.initializer):
        for value in values:
            value.name = prefixed(value.name)


def _softcapped(b: GraphBuilder, raw: str, softcap: float) -> tuple[str, str]:
    """c tanh(x / c), and its slope 1 - tanh^2."""
    cap = b.constant("softcap", np.float32(softcap))
    tanh = b.node("Tanh", [b.node("Div", [raw, cap], "within_cap")], "tanh")
    square = b.node("Mul", [tanh, tanh], "tanh_squared")
    slope = b.node("Sub", [b.constant("full_slope", np.float32(1)), square], "slope")
    return b.node("Mul", [tanh, cap], "capped"), slope


def _add_chunk_gradient(
    b: GraphBuilder, head: OutputHead, softmax: str, columns: str, slope: str | None
) -> None:
    axis = "axis"
    expected, own = softmax, b.node("Gather", [head.weight, "labels"], "own_rows", axis=0)
    if slope is not None:
        expected = b.node("Mul", [softmax, slope], "sloped_softmax")
        own_slope = b.node("GatherElements", [slope, columns], "own_slope", axis=1)
        own = b.node("Mul", [own, own_slope], "sloped_own_rows")
    expected = b.node("MatMul", [expected, head.weight], "expected_rows")
    difference = b.node("Sub", [expected, own], "difference")
    weight_column = b.node("Unsqueeze", ["weights", axis], "weight_column")
    b.node("Mul", [difference, weight_column], "gradient")
    b.output("gradient", ["n", head.hidden_size])
