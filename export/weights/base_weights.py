"""The frozen weights: written once into one file in the chosen precision, bound to each graph.

A graph is built with its weights as inputs, so no step of the export holds their values. In the end each
reader gets its own decoder from the stored form to float32, whose barrier keeps ONNX Runtime from folding the
decoded copy into memory: quantised weights stay quantised, and one decoded matrix lives at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import copy_of, reads_of, rename_reads, replace_nodes, subgraphs
from export.training.gradient import MICROSOFT, use_microsoft_operators
from export.weights.precision import Encoded, encode
from hetlora.errors import ModelNotExportable
from hetlora.manifest import Precision

# A page, so that each weight can be mapped straight from the file.
_ALIGNMENT_BYTES: Final = 4096

# A weight's values in the orientation of the checkpoint, on demand, in blocks of whole rows.
ReadWeight = Callable[[str], Iterable[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in the file, its ONNX element type and its shape."""

    offset: int
    size_bytes: int
    elem_type: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight in the file; `scale` is None unless it is quantised, `block_size` 0 with one scale a row."""

    data: Place
    scale: Place | None
    block_size: int


def write_weights(
    names: Iterable[str],
    read: ReadWeight,
    precision: Callable[[str], Precision],
    path: Path,
    progress: Callable[[int], None] = lambda written: None,
) -> dict[str, StoredWeight]:
    """Write the weights one after the other, equal ones once; one block of rows is in memory at a time.

    Raises:
        ModelNotExportable: numbers too large for their precision.
    """
    with path.open("wb") as file:
        writer = _Writer(file, {})
        stored = {}
        for name in names:
            try:
                stored[name] = _write_weight(writer, read(name), precision(name))
            except OverflowError as error:
                raise ModelNotExportable(
                    f"weight {name} does not fit its precision", got=error, expected="bfloat16, or float32"
                ) from error
            progress(file.tell())
    return stored


def _write_weight(
    writer: _Writer, blocks: Iterable[NDArray[np.float32]], precision: Precision
) -> StoredWeight:
    parts: list[Encoded] = []

    def pieces() -> Iterator[bytes]:
        for block in blocks:
            part = encode(block, precision)
            parts.append(replace(part, data=b""))
            yield part.data

    offset, size_bytes = writer.write(pieces())
    first = parts[0]
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:]) if first.shape else ()
    data = Place(offset, size_bytes, first.elem_type, shape)
    scales = [part.scale for part in parts if part.scale is not None]
    if not scales:
        return StoredWeight(data, None, 0)
    scale = np.concatenate(scales)
    place = Place(*writer.write([scale.tobytes()]), TensorProto.FLOAT, scale.shape)
    return StoredWeight(data, place, first.block_size)


@dataclass(frozen=True, slots=True)
class _Writer:
    file: BinaryIO
    offsets: dict[str, int]

    def write(self, pieces: Iterable[bytes]) -> tuple[int, int]:
        """Where the pieces lie one after the other, and their size; what is there already, is taken back."""
        end, digest = self.file.tell(), hashlib.sha256()
        self.file.write(bytes(-end % _ALIGNMENT_BYTES))
        offset = self.file.tell()
        for piece in pieces:
            digest.update(piece)
            self.file.write(piece)
        size_bytes = self.file.tell() - offset
        known = self.offsets.setdefault(digest.hexdigest(), offset)
        if known != offset:
            self.file.seek(end)
            self.file.truncate()
        return known, size_bytes


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


def fold_transposes(graph: GraphProto, weights: Iterable[str]) -> None:
    """Let matrix products read a weight as it lies, where the graph reads it through a Transpose."""
    names = set(weights)
    transposed = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in names
    }
    for node in graph.node:
        if len(node.input) > 1 and node.input[1] in transposed and node.op_type in _PRODUCTS:
            node.input[1] = transposed[node.input[1]]
            _flip_second_operand(node)
    read = set().union(*(reads_of(node) for node in graph.node)) if graph.node else set()
    read |= {value.name for value in graph.output}
    replace_nodes(graph, [n for n in graph.node if n.output[0] not in transposed or n.output[0] in read])


_PRODUCTS: Final = ("MatMul", "FusedMatMul", "Gemm")


def _flip_second_operand(node: NodeProto) -> None:
    if node.op_type == "MatMul":
        node.op_type, node.domain = "FusedMatMul", MICROSOFT
    before = [attribute for attribute in node.attribute if attribute.name == "transB"]
    if before:
        before[0].i = 1 - before[0].i
    else:
        node.attribute.append(helper.make_attribute("transB", 1))


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


def is_row_lookup(node: NodeProto) -> bool:
    """Whether a node reads some rows of a table, and no more of it."""
    return node.op_type == "Gather" and all(attribute.i == 0 for attribute in node.attribute)


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
