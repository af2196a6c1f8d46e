"""The language-model loss, chunk by chunk: logits of more than one chunk never exist at the same time.

The gradient of the mean cross entropy with respect to the hidden states is known in closed form, so it is
computed in the forward pass beside the loss. The gradient builder only ever sees `surrogate = sum(hidden *
gradient)`, whose derivative is that gradient; afterwards the graph input `gradient` is replaced by the nodes
that compute it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import drop_dead, drop_inputs, replace_nodes
from export.graphs.microsoft import MICROSOFT
from export.graphs.output_head import OutputHead
from export.graphs.shapes import ROWS
from export.training.gradient import TASK_LOSS
from hetlora.graph_names import IGNORED_LABEL, LABELS

HIDDEN_ROWS: Final = "head/hidden_rows"  # float32 (batch * tokens, hidden)
_GRADIENT: Final = "head/gradient"
_PRODUCTS: Final = "head/products"
_ZERO, _ONE, _MINUS_ONE, _IGNORED = "head/0", "head/1", "head/-1", "head/ignored"
_CONSTANTS: Final[dict[str, NDArray[np.int64]]] = {
    _ZERO: np.array([0]),
    _ONE: np.array([1]),
    _MINUS_ONE: np.array([-1]),
    _IGNORED: np.array(IGNORED_LABEL),
}
# 32 MiB of logits, a few arrays of which are alive at a time. Each chunk reads the vocabulary's matrix whole:
# 128 rows of a vocabulary of 65,536 share that cost, and it no longer shows.
_CHUNK_NUMBERS: Final = 8 * 2**20


def most_chunk_rows(head: OutputHead) -> int:
    """Of how many rows at most the logits exist at the same time."""
    return max(1, _CHUNK_NUMBERS // head.vocabulary)


def expose_rows(model: ModelProto, head: OutputHead) -> None:
    """Let HIDDEN_ROWS be the graph's one output, and cut off what made the logits."""
    b = GraphBuilder(model.graph)
    width = b.constant("head/row_shape", np.array([-1, head.hidden_size]))
    b.node("Reshape", [head.hidden, width], HIDDEN_ROWS)
    b.only_outputs({HIDDEN_ROWS: None})
    drop_dead(model.graph)


def add_surrogate(model: ModelProto, head: OutputHead) -> None:
    """Replace the outputs of the graph by the surrogate loss."""
    expose_rows(model, head)
    b = GraphBuilder(model.graph)
    b.input(_GRADIENT, [ROWS, head.hidden_size])
    b.node("Mul", [HIDDEN_ROWS, _GRADIENT], _PRODUCTS)
    b.node("ReduceSum", [_PRODUCTS], TASK_LOSS, keepdims=0)
    b.only_outputs({TASK_LOSS: []})


def replace_surrogate(training: ModelProto, head: OutputHead, *, shift: bool) -> None:
    """Compute the loss and the gradient where the built graph has the surrogate."""
    graph = training.graph
    gradient = _surrogate_gradient(graph)
    kept = [node for node in graph.node if {TASK_LOSS, _PRODUCTS, gradient}.isdisjoint(node.output)]
    at = 1 + next(i for i, node in enumerate(kept) if HIDDEN_ROWS in node.output)
    made: list[NodeProto] = []
    add_chunked_loss(GraphBuilder(graph, made), head, shift=shift, loss=TASK_LOSS, gradient=gradient)
    replace_nodes(graph, [*kept[:at], *made, *kept[at:]])
    drop_inputs(graph, {_GRADIENT})


def _surrogate_gradient(graph: GraphProto) -> str:
    """What the builder made as gradient of the hidden rows: the output of the other reader of `gradient`."""
    (node,) = (node for node in graph.node if _GRADIENT in node.input and _PRODUCTS not in node.output)
    return str(node.output[0])


def add_chunked_loss(
    b: GraphBuilder, head: OutputHead, *, shift: bool, loss: str, gradient: str | None = None
) -> None:
    """Add `loss`, the mean cross entropy over the labels that are not IGNORED_LABEL.

    With `shift`, the label of a position is the next token, as language models are trained. Rows without a
    label are left out; the others go through a Scan in chunks, which sums their losses. `gradient` names the
    gradient of the loss with respect to HIDDEN_ROWS, or is None where only the loss is wanted.
    """
    _add_inputs(b, head)
    for name, value in _CONSTANTS.items():
        b.constant(name, value)
    hidden, labels, places = _labelled_rows(b, shift=shift)
    count = b.node("Shape", [labels], "head/count")
    rows = b.node("Max", [count, _ONE], "head/rows")  # no label at all: one row of padding, and loss 0
    chunks = _in_chunks(b, head, hidden, labels, count, rows)
    body = _chunk(head, with_gradient=gradient is not None)
    outputs = ["head/total"] if gradient is None else ["head/total", "head/gradient_chunks"]
    start = b.constant("head/0.0", np.float32(0))
    total = b.node("Scan", [start, *chunks], *outputs, body=body, num_scan_inputs=3)
    divisor = b.node("Cast", [rows], "head/rows_float", to=TensorProto.FLOAT)
    divisor = b.node("Squeeze", [divisor], "head/divisor")
    if gradient is not None:
        _put_in_place(b, head, outputs[1], places, count, divisor, gradient)
    b.node("Div", [total, divisor], loss)


def _add_inputs(b: GraphBuilder, head: OutputHead) -> None:
    inputs = {value.name for value in b.graph.input}
    if LABELS not in inputs:  # a decoder with a text of its own has read them already
        b.input(LABELS, ["batch", "tokens"], TensorProto.INT64)
    if head.weight not in inputs:  # nothing else reads it, as it is not tied to the embeddings
        b.input(head.weight, [head.vocabulary, head.hidden_size])


def _labelled_rows(b: GraphBuilder, *, shift: bool) -> tuple[str, str, str]:
    """The hidden rows that have a label (count, hidden), their labels (count,), and their places (count,)."""
    labels = _shifted_labels(b) if shift else LABELS
    flat = b.node("Reshape", [labels, _MINUS_ONE], "head/flat_labels")
    is_label = b.node("Not", [b.node("Equal", [flat, _IGNORED], "head/is_ignored")], "head/is_label")
    places = b.node("Reshape", [b.node("NonZero", [is_label], "head/places_row"), _MINUS_ONE], "head/places")
    rows = b.node("Gather", [HIDDEN_ROWS, places], "head/labelled_rows")
    return rows, b.node("Gather", [flat, places], "head/row_labels"), places


def _shifted_labels(b: GraphBuilder) -> str:
    end = b.constant("head/end", np.array([np.iinfo(np.int64).max]))
    following = b.node("Slice", [LABELS, _ONE, end, _ONE], "head/following")
    pads = b.constant("head/one_column", np.array([0, 0, 0, 1]))
    return b.node("Pad", [following, pads, _IGNORED], "head/next_labels")


def _in_chunks(
    b: GraphBuilder, head: OutputHead, hidden: str, labels: str, count: str, rows: str
) -> list[str]:
    """Hidden rows (chunks, n, hidden), labels and weights (chunks, n): `rows` in chunks of one size.

    The last chunk is filled up with rows of zeros, whose weight is 0; all others have weight 1.
    """
    chunks = _ceil_div(b, rows, most_chunk_rows(head), "head/chunks")
    size = _ceil_div(b, rows, chunks, "head/chunk_rows")
    missing = b.node("Sub", [b.node("Mul", [chunks, size], "head/padded"), count], "head/missing")
    pads = b.node("Concat", [_ZERO, _ZERO, missing, _ZERO], "head/hidden_pads", axis=0)
    hidden = b.node("Pad", [hidden, pads], "head/padded_rows")
    pads = b.node("Concat", [_ZERO, missing], "head/label_pads", axis=0)
    labels = b.node("Pad", [labels, pads], "head/padded_labels")
    ones = b.node("Expand", [b.constant("head/1.0", np.float32(1)), count], "head/ones")
    weights = b.node("Pad", [ones, pads], "head/label_weights")
    shape = b.node("Concat", [chunks, size], "head/by_chunk", axis=0)
    wide = b.node("Concat", [shape, _width(b, head)], "head/by_chunk_wide", axis=0)
    return [
        b.node("Reshape", [hidden, wide], "head/hidden_chunks"),
        b.node("Reshape", [labels, shape], "head/label_chunks"),
        b.node("Reshape", [weights, shape], "head/weight_chunks"),
    ]


def _put_in_place(
    b: GraphBuilder, head: OutputHead, chunks: str, places: str, count: str, divisor: str, gradient: str
) -> None:
    """Add `gradient`: what the chunks say, divided, in the places of the labelled rows, and else zeros."""
    flat = b.node("Concat", [_MINUS_ONE, _width(b, head)], "head/flat_shape", axis=0)
    rows = b.node("Reshape", [chunks, flat], "head/padded_gradient")
    rows = b.node("Slice", [rows, _ZERO, count], "head/labelled_gradient")
    rows = b.node("Div", [rows, divisor], "head/mean_gradient")
    zeros = b.node("ConstantOfShape", [b.node("Shape", [HIDDEN_ROWS], "head/rows_shape")], "head/zeros")
    column = b.constant("head/column", np.array([-1, 1]))
    b.node("ScatterND", [zeros, b.node("Reshape", [places, column], "head/at"), rows], gradient)


def _width(b: GraphBuilder, head: OutputHead) -> str:
    return b.constant("head/width", np.array([head.hidden_size]))


def _ceil_div(b: GraphBuilder, numerator: str, denominator: str | int, name: str) -> str:
    if isinstance(denominator, int):
        denominator = b.constant(f"{name}/denominator", np.array([denominator]))
    less = b.node("Sub", [denominator, _ONE], f"{name}/less")
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
    raw = b.node("FusedMatMul", [rows, head.weight], "raw", transB=1, domain=MICROSOFT)
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
