"""What the decoder of a sequence-to-sequence model reads while it trains: its labels, one place later."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import drop_inputs, replace_nodes
from hetlora.graph_names import DECODER_INPUT_IDS, IGNORED_LABEL, LABELS


def feed_labels_to_decoder(model: ModelProto, *, start: int, padding: int) -> None:
    """Make DECODER_INPUT_IDS out of the new input LABELS, int64 (batch, target_tokens).

    The first is `start`; ignored labels, which stand at the end, are read as `padding`. As T5 in transformers
    does with its labels.
    """
    graph = model.graph
    drop_inputs(graph, {DECODER_INPUT_IDS})
    made: list[NodeProto] = []
    b = GraphBuilder(graph, made)
    b.input(LABELS, ["batch", "target_tokens"], TensorProto.INT64)
    ignored = b.constant("decoder/ignored", np.int64(IGNORED_LABEL))
    is_ignored = b.node("Equal", [LABELS, ignored], "decoder/is_ignored")
    pads = b.constant("decoder/one_before", np.array([0, 1, 0, -1]))  # a negative one cuts the last off
    pad = b.constant("decoder/padding", np.int64(padding))
    tokens = b.node("Where", [is_ignored, pad, LABELS], "decoder/tokens")
    b.node("Pad", [tokens, pads, b.constant("decoder/start", np.int64(start))], DECODER_INPUT_IDS)
    replace_nodes(graph, [*made, *graph.node])
