"""The frozen weights in a graph: read from their file, and decoded just before they are used.

A graph is built with its weights as inputs, so no step of the export holds their values. In the end each
reader gets its own decoder from the stored form to float32, whose barrier keeps ONNX Runtime from folding the
decoded copy into memory: quantised weights stay quantised, and one decoded matrix lives at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import drop_inputs, in_words, reads_of, rename_reads, replace_nodes
from export.graphs.microsoft import MICROSOFT, use_microsoft_operators
from export.graphs.products import is_row_lookup
from export.weights.weight_file import Place, StoredWeight
from hetlora.errors import ModelNotExportable


def bind_weights(
    model: ModelProto, stored: Mapping[str, StoredWeight], location: str, *, barrier: bool
) -> None:
    """Turn the weight inputs of a graph into initializers in the file, each reader with its own decoder.

    `barrier` needs an operator of ONNX Runtime's training build; without it the session must not fold
    constants.
    """
    graph = model.graph
    use_microsoft_operators(model)
    bound = [value.name for value in graph.input if value.name in stored]
    drop_inputs(graph, stored)
    for name in bound:
        weight = stored[name]
        _add_initializer(graph, name, weight.data, location)
        if weight.scale is not None:
            _add_initializer(graph, _scale_name(name), weight.scale, location)
    encoded = {name: stored[name] for name in bound if stored[name].data.elem_type != TensorProto.FLOAT}
    if encoded:
        _decode_for_readers(graph, encoded, barrier=barrier)


def _add_initializer(graph: GraphProto, name: str, place: Place, location: str) -> None:
    tensor = graph.initializer.add(
        name=name, data_type=place.elem_type, dims=place.shape, data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", place.offset), ("length", place.size_bytes)):
        tensor.external_data.add(key=key, value=str(value))


def _scale_name(weight: str) -> str:
    return f"{weight}/scale"


def _decode_for_readers(graph: GraphProto, encoded: Mapping[str, StoredWeight], *, barrier: bool) -> None:
    # ONNX Runtime enters, of what a node reads, what lies furthest back first: decoders that nothing holds
    # back stand before all else, so that each runs just before its reader and not before the first layer.
    first: list[NodeProto] = []
    nodes: list[NodeProto] = []
    for number, node in enumerate(graph.node):
        before: list[NodeProto] = []
        after: list[NodeProto] = []
        for name in sorted(reads_of(node) & encoded.keys()):
            if is_row_lookup(node) and node.input[0] == name:
                _decode_rows(GraphBuilder(graph, after), node, number, name, encoded[name])
            else:
                _decode(GraphBuilder(graph, before), node, number, name, encoded[name], barrier=barrier)
        (nodes if barrier else first).extend(before)
        nodes += [node, *after]
    replace_nodes(graph, [*first, *nodes])


def _decode(
    b: GraphBuilder, reader: NodeProto, number: int, name: str, weight: StoredWeight, *, barrier: bool
) -> None:
    """Add what decodes a weight, and let `reader` read that."""
    stem = f"{name}/{number}"
    source = name if weight.scale is None else _scale_name(name)
    if barrier:
        read = (*reader.input, *sorted(reads_of(reader)))
        other = next((x for x in read if x and not x.startswith(name)), None)
        if other is None:
            raise ModelNotExportable(
                f"{in_words(reader)} reads nothing but a weight, which cannot stay quantised there",
                got=name,
                expected="float32 as base",
            )
        outputs = (f"{stem}/passed", f"{stem}/token")
        source = b.node("PassThrough", [source, other], *outputs, name=f"{stem}/barrier", domain=MICROSOFT)
    if weight.scale is None:
        decoded = b.node("Cast", [source], f"{stem}/decoded", to=TensorProto.FLOAT)
    else:
        blocks: dict[str, Any] = (
            {"axis": 1, "block_size": weight.block_size} if weight.block_size else {"axis": 0}
        )
        decoded = b.node("DequantizeLinear", [name, source], f"{stem}/decoded", **blocks)
    rename_reads([reader], {name: decoded})


def _decode_rows(b: GraphBuilder, gather: NodeProto, number: int, name: str, weight: StoredWeight) -> None:
    """Let `gather` take encoded rows, and decode those alone: an embedding's table stays as it is."""
    stem, output = f"{name}/{number}", gather.output[0]
    rows = gather.output[0] = f"{stem}/rows"
    if weight.scale is None:
        b.node("Cast", [rows], output, to=TensorProto.FLOAT)
        return
    assert not weight.block_size, "tables of embeddings have one scale a row"
    last = b.constant("base/last_axis", np.array([-1]))
    scales = b.node("Gather", [_scale_name(name), gather.input[1]], f"{stem}/scales", axis=0)
    column = b.node("Unsqueeze", [scales, last], f"{stem}/column")
    whole = b.node("Cast", [rows], f"{stem}/float", to=TensorProto.FLOAT)
    b.node("Mul", [whole, column], output)
