"""A bundle's ONNX graphs, checked before ONNX Runtime opens them: it would read whatever file they name.

Numbers of fields are those of onnx.proto, ONNX 1.16. The graphs are read without the onnx package, which
devices do not have.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from edge_sdk.runtimes.protobuf import DELIMITED, VARINT, fields
from edge_sdk.runtimes.signature import RANK, Signature, Sizes
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid

# By message and field, each message below it that holds, or may hold, a tensor.
_MESSAGES: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training_info", 25: "function"},
    "training_info": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse_tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse_tensor",
        23: "sparse_tensor",
    },
    "sparse_tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external_data"},
}
_MAX_DEPTH: Final = 100  # messages in messages, as in protobuf's own parsers
_MAIN_GRAPH, _INPUT, _OUTPUT = 7, 11, 12
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_ELEMENT_TYPES: Final = {1: "float32", 7: "int64", 11: "float64"}
# What ONNX Runtime adds to a training graph and feeds by itself.
_OWN_INPUTS: Final = re.compile(r"lazy_reset_grad|.*_grad\.accumulation\.buffer")

# Key and value, as often as they are there.
ExternalData = list[tuple[str, str]]


def checked_graph(
    bundle: Bundle, relative: str, *, inputs: Signature | None = None, outputs: Collection[str] = ()
) -> Path:
    """Where a graph of the bundle lies, once it reads no file but the base weights.

    `inputs` are all that it takes, and `outputs` some that it answers.

    Raises:
        BundleInvalid: no graph, one that reads what lies elsewhere, or one with other inputs or outputs.
    """
    path = bundle.path(relative)
    try:
        data = path.read_bytes()
        weight_bytes = bundle.path(bundle.manifest.graphs.base_weights).stat().st_size
        for entry in external_data(data):
            _check_external(entry, relative, bundle.manifest.graphs.base_weights, weight_bytes)
        got, answered = _values(data, _INPUT), _values(data, _OUTPUT)
    except (OSError, ValueError) as error:
        raise BundleInvalid(f"{path.name} cannot be loaded", got=error, expected="an ONNX graph") from error
    if inputs is not None:
        _check_inputs(path.name, got, inputs)
    if not answered.keys() >= set(outputs):
        raise BundleInvalid(f"outputs of {path.name}", got=sorted(answered)[:5], expected=sorted(outputs))
    return path


def external_data(data: bytes) -> Iterator[ExternalData]:
    """Of each tensor of a model that has any, what it says of the file that holds its numbers.

    Raises:
        ValueError: the bytes are no model, or one too deep to be read.
    """
    return _external_data(data, "model", 0, len(data), 0)


def _external_data(data: bytes, message: str, start: int, end: int, depth: int) -> Iterator[ExternalData]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"messages in messages, more than {_MAX_DEPTH} deep")
    below, own = _MESSAGES[message], []
    for number, wire_type, first, last in fields(data, start, end):
        if wire_type != DELIMITED or number not in below:
            continue
        if below[number] == "external_data":
            own.append(_entry(data, first, last))
        else:
            yield from _external_data(data, below[number], first, last, depth + 1)
    if own:
        yield own


def _entry(data: bytes, start: int, end: int) -> tuple[str, str]:
    """A StringStringEntryProto; where a field comes twice, the last counts."""
    texts = {
        number: (first, last) for number, kind, first, last in fields(data, start, end) if kind == DELIMITED
    }
    key, value = (data[slice(*texts.get(number, (0, 0)))].decode() for number in (1, 2))
    return key, value


def _check_external(entry: ExternalData, relative: str, base_weights: str, size_bytes: int) -> None:
    told = dict(entry)
    beside = posixpath.relpath(base_weights, posixpath.dirname(relative) or ".")
    # A file is anything but this very path: ONNX Runtime takes others from anywhere, and one from memory.
    if len(told) != len(entry) or told.keys() - {"offset"} != {"location", "length"}:
        raise ValueError(f"a tensor outside the graph with {sorted(key for key, _ in entry)[:5]}")
    if told["location"] != beside:
        raise BundleInvalid(
            f"{relative} reads a file other than the base weights", got=told["location"], expected=beside
        )
    offset, length = told.get("offset", "0"), told["length"]
    if not (
        _NUMBER.fullmatch(offset) and _NUMBER.fullmatch(length) and int(offset) + int(length) <= size_bytes
    ):
        raise BundleInvalid(
            f"{relative} reads beyond the base weights",
            got=f"{length} bytes from {offset}",
            expected=f"some of {size_bytes} bytes",
        )


def _check_inputs(name: str, got: Signature, wanted: Signature) -> None:
    theirs = {key for key in got if not _OWN_INPUTS.fullmatch(key)}
    if theirs != wanted.keys():
        raise BundleInvalid(
            f"inputs of {name} differ from the manifest",
            got=sorted(theirs - wanted.keys())[:3] or "fewer",
            expected=sorted(wanted.keys() - theirs)[:3] or "no others",
        )
    for key, (dtype, sizes) in wanted.items():
        if got[key][0] != dtype or not _fits(got[key][1], sizes):
            raise BundleInvalid(
                f"{key} of {name} differs from the manifest", got=got[key], expected=(dtype, sizes)
            )


def _fits(got: Sizes, wanted: Sizes) -> bool:
    """The rank may be fixed in the graph alone; the names of other symbols are the graph's own."""
    return len(got) == len(wanted) and all(
        size in (RANK, own) or (isinstance(size, str) and isinstance(own, str))
        for own, size in zip(got, wanted, strict=True)
    )


def _values(data: bytes, number: int) -> Signature:
    """The inputs or the outputs of the main graph, each a ValueInfoProto; no dtype for what is no tensor."""
    return dict(
        (_text(data, value, 1), _tensor_type(data, value))
        for graph in _parts(data, (0, len(data)), _MAIN_GRAPH)
        for value in _parts(data, graph, number)
    )


def _tensor_type(data: bytes, value: tuple[int, int]) -> tuple[str, Sizes]:
    """type.tensor_type of a ValueInfoProto: elem_type, and shape.dim of dim_value or dim_param."""
    tensors = [tensor for kind in _parts(data, value, 2) for tensor in _parts(data, kind, 1)]
    numbers = [_number(data, tensor, 1) for tensor in tensors]
    sizes = [
        _number(data, dim, 1) or _text(data, dim, 2) or "?"
        for tensor in tensors
        for shape in _parts(data, tensor, 2)
        for dim in _parts(data, shape, 1)
    ]
    return _ELEMENT_TYPES.get(sum(numbers), "other"), tuple(sizes)


def _parts(data: bytes, message: tuple[int, int], number: int) -> list[tuple[int, int]]:
    found = fields(data, *message)
    return [(first, last) for other, kind, first, last in found if (other, kind) == (number, DELIMITED)]


def _number(data: bytes, message: tuple[int, int], number: int) -> int:
    found = [value for other, kind, value, _ in fields(data, *message) if (other, kind) == (number, VARINT)]
    return found[-1] if found else 0


def _text(data: bytes, message: tuple[int, int], number: int) -> str:
    found = _parts(data, message, number)
    return data[slice(*found[-1])].decode() if found else ""
