"""How large each tensor of a training graph is, as a sum of terms in the sizes of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from export.graphs.graph_edit import subgraphs
from export.graphs.products import PRODUCTS
from export.graphs.shapes import ROWS, Dim, Shape, shape_of
from export.training.lora_graph import RANK
from export.training.recomputation import RECOMPUTED
from hetlora.cost import StepCost

# One number for each field of StepCost, in their order.
Terms = NDArray[np.float64]
TERMS: Final = tuple(StepCost.model_fields)
NOTHING: Final[Terms] = np.zeros(len(TERMS))

CHUNK: Final = "chunk"  # the labelled rows whose logits are made at a time
_TOKENS: Final = ("tokens", "target_tokens", ROWS)

_BITS: Final[Mapping[int, int]] = {
    TensorProto.INT64: 64,
    TensorProto.DOUBLE: 64,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.BOOL: 8,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}
_MAKES_SHAPES: Final = ("Shape", "Size")
_MAKES_INTEGERS: Final = ("NonZero", "ArgMax")
_MAKES_BOOLEANS: Final = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or")


@dataclass(frozen=True, slots=True)
class Sized:
    """A tensor's dimensions, each a number or a product of symbols, and its ONNX element type."""

    shape: Shape
    elem_type: int

    def bytes(self) -> Terms | None:
        """The bytes that it takes, or None where a symbol is not known."""
        numbers = terms_of(self.shape)
        return None if numbers is None else numbers * _BITS.get(self.elem_type, 32) / 8


def terms_of(dims: Sequence[Dim]) -> Terms | None:
    """The product of dimensions, or None where a symbol is not known.

    Where no term fits, the next larger one stands for it: rotary angles, which all texts share, are counted
    for each text.
    """
    parts = [part for dim in dims for part in str(dim).split("*")]
    term = _term_for([part for part in parts if not part.isdigit()])
    if term is None:
        return None
    terms = NOTHING.copy()
    terms[TERMS.index(term)] = prod(int(part) for part in parts if part.isdigit())
    return terms


def _term_for(symbols: Sequence[str]) -> str | None:
    tokens = sum(symbol in _TOKENS for symbol in symbols)
    ranks = sum(symbol.partition("/")[0] == RANK for symbol in symbols)
    texts, chunks = symbols.count("batch"), symbols.count(CHUNK)
    if tokens + ranks + texts + chunks < len(symbols):
        return None
    if chunks:
        return "per_chunk_row"
    if ranks:
        return "per_token_per_rank" if tokens + texts else "per_rank"
    if tokens:
        return "per_token" if tokens == 1 else "per_token_pair"
    return "per_text" if texts else "fixed"


def declared_sizes(model: ModelProto) -> dict[str, Sized]:
    """The tensors whose shapes a graph declares, all in terms that are known."""
    graph = model.graph
    sizes = {
        value.name: Sized(shape_of(value), value.type.tensor_type.elem_type)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return {name: size for name, size in sizes.items() if size.bytes() is not None}


def sizes_in(graph: GraphProto, known: Mapping[str, Sized]) -> dict[str, Sized]:
    """The sizes that are known, and those of tensors of the graph that follow from them."""
    sizes = dict(known)
    for tensor in graph.initializer:
        sizes[tensor.name] = Sized(tuple(tensor.dims), tensor.data_type)
    measured: dict[str, str] = {}  # what each vector is the shape of
    for node in graph.node:
        if node.op_type == "Shape":
            measured[node.output[0]] = node.input[0]
        missing = [name for name in node.output if name and name not in sizes]
        if not missing:
            continue
        like = sizes.get(measured.get(node.input[0], "")) if node.op_type == "ConstantOfShape" else None
        for name, size in zip(node.output, _outputs(node, sizes), strict=False):
            size = sizes.get(name.removeprefix(RECOMPUTED)) or like or size
            if name in missing and size is not None and size.bytes() is not None:
                sizes[name] = size
    return sizes


def body_sizes(scan: NodeProto, sizes: Mapping[str, Sized]) -> dict[str, Sized]:
    """The sizes within the body of a Scan over the chunks of the loss."""
    (body,) = subgraphs(scan)
    return sizes_in(body, {**sizes, **{value.name: _of_a_chunk(value) for value in body.input}})


def _of_a_chunk(value: ValueInfoProto) -> Sized:
    shape = tuple(CHUNK if isinstance(dim, str) else dim for dim in shape_of(value))
    return Sized(shape, value.type.tensor_type.elem_type)


def _outputs(node: NodeProto, sizes: Mapping[str, Sized]) -> list[Sized | None]:
    """What the outputs are, or at most can be, judged by what the node reads."""
    if node.op_type == "If":
        branch = subgraphs(node)[0]
        inner = sizes_in(branch, sizes)
        return [inner.get(value.name) for value in branch.output]
    if node.op_type == "Scan":
        (body,) = subgraphs(node)
        inner = body_sizes(node, sizes)
        return [_of_all_chunks(inner.get(value.name)) for value in body.output]
    read = [sizes.get(name) for name in node.input]
    if node.op_type == "PassThrough":
        return read
    if node.op_type in _MAKES_SHAPES:
        return []
    largest = max((size for size in read if size is not None), key=_sample, default=None)
    if largest is None:
        return []
    made = Sized(_shape(node, read) or largest.shape, _elem_type(node, largest.elem_type))
    return [made] * len(node.output)


def _of_all_chunks(size: Sized | None) -> Sized | None:
    return size and Sized(tuple(ROWS if dim == CHUNK else dim for dim in size.shape), size.elem_type)


def _shape(node: NodeProto, read: Sequence[Sized | None]) -> Shape | None:
    """The shape of an output where it is not that of the largest input."""
    shapes = [size.shape for size in read[:2] if size is not None]
    if len(shapes) < 2:
        return None
    first, second = shapes
    if node.op_type in PRODUCTS:
        rows = first[-1] if flag_of(node, "transA") else first[-2]
        return (*first[:-2], rows, second[-2] if flag_of(node, "transB") else second[-1])
    if node.op_type == "Gather":
        return (*second, *first[1:])
    if node.op_type == "GatherElements":
        return second
    return first[:-1] if node.op_type.startswith("Reduce") else None


def flag_of(node: NodeProto, name: str) -> bool:
    """Whether a node has an attribute that is not 0."""
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def _elem_type(node: NodeProto, of_input: int) -> int:
    if node.op_type == "Cast":
        return int(next(attribute.i for attribute in node.attribute if attribute.name == "to"))
    if node.op_type == "DequantizeLinear":
        return TensorProto.FLOAT
    if node.op_type in _MAKES_INTEGERS:
        return TensorProto.INT64
    return TensorProto.BOOL if node.op_type in _MAKES_BOOLEANS else of_input


def _sample(size: Sized) -> float:
    """For the order of sizes: what a tensor takes in a step of sizes that no dimension equals."""
    terms = size.bytes()
    return 0.0 if terms is None else float(terms @ _SAMPLE)


# As fields of StepCost: 3 texts of 1,000 tokens, rank 2, chunks of 100 rows.
_SAMPLE: Final = np.array([1, 3, 3000, 3000 * 1000, 2, 3000 * 2, 100], dtype=np.float64)
