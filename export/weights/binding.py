"""The frozen weights in a graph: read from their file, and decoded just before they are used.

A graph is built with its weights as inputs, so no step of the export holds their values. In the end each
reader gets its own decoder from the stored form to float32, whose barrier keeps ONNX Runtime from folding the
decoded copy into memory: quantised weights stay quantised, and one decoded matrix lives at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import copy_of, reads_of, rename_reads, replace_nodes, subgraphs
from export.graphs.microsoft import MICROSOFT, use_microsoft_operators
from export.graphs.products import is_row_lookup
from export.weights.weight_file import Place, StoredWeight


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
    inputs = [copy_of(value) for value in graph.input if value.name not in stored]
    del graph.input[:]
    graph.input.extend(inputs)
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
        after: list[NodeProto] = []
        for name in sorted(reads_of(node) & encoded.keys()):
            before, after_this = _decoder(graph, node, number, name, encoded[name], barrier=barrier)
            (nodes if barrier else first).extend(before)
            after += after_this
        nodes.append(node)
        nodes += after
    replace_nodes(graph, [*first, *nodes])


def _decoder(
    graph: GraphProto, reader: NodeProto, number: int, name: str, weight: StoredWeight, *, barrier: bool
) -> tuple[list[NodeProto], list[NodeProto]]:
    """The nodes before and after `reader`, which is changed to read, or to make, decoded values."""
    stem = f"{name}/{number}"
    if is_row_lookup(reader) and reader.input[0] == name:
        return [], _decode_rows(graph, reader, stem, name, weight)
    decoded = f"{stem}/decoded"
    source = name if weight.scale is None else _scale_name(name)
    nodes = []
    if barrier:
        other = next(x for x in (*reader.input, *sorted(reads_of(reader))) if x and not x.startswith(name))
        passed = [f"{stem}/passed", f"{stem}/token"]
        nodes.append(
            helper.make_node("PassThrough", [source, other], passed, name=f"{stem}/barrier", domain=MICROSOFT)
        )
        source = passed[0]
    if weight.scale is None:
        nodes.append(helper.make_node("Cast", [source], [decoded], name=decoded, to=TensorProto.FLOAT))
    else:
        blocks: dict[str, Any] = (
            {"axis": 1, "block_size": weight.block_size} if weight.block_size else {"axis": 0}
        )
        nodes.append(helper.make_node("DequantizeLinear", [name, source], [decoded], name=decoded, **blocks))
    if subgraphs(reader):
        rename_reads([reader], {name: decoded})
    else:
        reader.input[:] = [decoded if x == name else x for x in reader.input]
    return nodes, []


def _decode_rows(
    graph: GraphProto, gather: NodeProto, stem: str, name: str, weight: StoredWeight
) -> list[NodeProto]:
    """Gather encoded rows and decode those alone: an embedding's table stays as it is."""
    output, rows = gather.output[0], f"{stem}/rows"
    gather.output[0] = rows
    if weight.scale is None:
        return [helper.make_node("Cast", [rows], [output], name=output, to=TensorProto.FLOAT)]
    assert not weight.block_size, "tables of embeddings have one scale a row"
    last = GraphBuilder(graph).constant("base/last_axis", np.array([-1]))
    scales, column, whole = f"{stem}/scales", f"{stem}/column", f"{stem}/float"
    return [
        helper.make_node("Gather", [_scale_name(name), gather.input[1]], [scales], name=scales, axis=0),
        helper.make_node("Unsqueeze", [scales, last], [column], name=column),
        helper.make_node("Cast", [rows], [whole], name=whole, to=TensorProto.FLOAT),
        helper.make_node("Mul", [whole, column], [output], name=output),
    ]
