"""Writes operators that only ONNX Runtime's training build has in those that every build has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from onnx import ModelProto, NodeProto

from export.graphs.graph_edit import drop_dead, in_words, reads_of, replace_nodes
from export.graphs.microsoft import MICROSOFT
from export.graphs.shapes import known_shapes
from export.plain import activations, normalisation, pieces
from export.plain.node import Form, OldNode
from hetlora.errors import ModelNotExportable

# Of ONNX Runtime's own operators those that its plain build has too: ContribOperators.md of version 1.20.
PLAIN: Final = frozenset({"FusedMatMul", "Gelu", "QuickGelu", "FastGelu", "BiasGelu"})

FORMS: Final[Mapping[str, Form]] = {
    "ConcatTraining": pieces.concat,
    "DivGrad": activations.division,
    "FastGeluGrad": activations.fast_gelu,
    "GatherElementsGrad": pieces.gather_elements,
    "GatherGrad": pieces.gather,
    "GeluGrad": activations.gelu,
    "LayerNormalizationGrad": normalisation.layer_norm,
    "PassThrough": pieces.barrier,
    "QuickGeluGrad": activations.quick_gelu,
    "ReluGrad": activations.relu,
    "SimplifiedLayerNormalizationGrad": normalisation.root_mean_square_norm,
    "SliceGrad": pieces.slice_,
    "SoftmaxCrossEntropyLossGrad": activations.cross_entropy,
    "SoftmaxGrad_13": activations.softmax,
    "SplitTraining": pieces.split,
    "TanhGrad": activations.tanh,
}


def use_plain_operators(model: ModelProto) -> None:
    """Replace every node that needs the training build; the shapes that were inferred have to be there yet.

    Raises:
        ModelNotExportable: an operator of the training build that has no such form.
    """
    graph, shapes = model.graph, known_shapes(model)
    read = {value.name for value in graph.output}.union(*map(reads_of, graph.node))
    nodes: list[NodeProto] = []
    for node in graph.node:
        write = FORMS.get(node.op_type) if node.domain == MICROSOFT else None
        if write is not None:
            old = OldNode(node, graph, nodes, shapes)
            write(old)
            old.check_answered(read)
        elif node.domain == MICROSOFT and node.op_type not in PLAIN:
            raise ModelNotExportable(
                f"{in_words(node)} is of ONNX Runtime's training build",
                expected="one that can be written for phones and pages",
            )
        else:
            nodes.append(node)
    replace_nodes(graph, nodes)
    drop_dead(graph)
