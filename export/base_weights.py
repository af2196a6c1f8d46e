"""The frozen weights: taken out of the graph before it is differentiated, and bound back from one file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from export.graph_builder import GraphBuilder

# A page, so that each weight can be mapped straight from the file.
_ALIGNMENT_BYTES: Final = 4096

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight lies in the file, and its shape."""

    offset: int
    size_bytes: int
    shape: tuple[int, ...]


def detach_weights(model: ModelProto) -> Weights:
    """Turn every frozen float32 initializer with an axis into a graph input, and return the values.

    Without values the gradient builder can neither fold nor copy them, and building takes under a second
    whatever the model's size.
    """
    builder = GraphBuilder(model.graph)
    weights: Weights = {}
    kept = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.dims:
            weights[tensor.name] = numpy_helper.to_array(tensor)
            builder.input(tensor.name, list(tensor.dims))
        else:
            kept.append(tensor)
    kept = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    return weights


def write_weights(weights: Weights, path: Path) -> dict[str, Place]:
    """Write the weights one after the other, equal ones once; returns the place of each."""
    places: dict[str, Place] = {}
    written: dict[str, int] = {}
    with path.open("wb") as file:
        for name, weight in weights.items():
            data = np.ascontiguousarray(weight, dtype="<f4").tobytes()
            digest = hashlib.sha256(data).hexdigest()
            if digest not in written:
                file.write(bytes(-file.tell() % _ALIGNMENT_BYTES))
                written[digest] = file.tell()
                file.write(data)
            places[name] = Place(written[digest], len(data), weight.shape)
    return places


def bind_weights(model: ModelProto, places: dict[str, Place], location: str) -> None:
    """Turn the weight inputs of a graph back into initializers that point into the file."""
    inputs = [value for value in model.graph.input if value.name not in places]
    bound = [value.name for value in model.graph.input if value.name in places]
    inputs = [type(value).FromString(value.SerializeToString()) for value in inputs]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for name in bound:
        place = places[name]
        tensor = model.graph.initializer.add(
            name=name,
            data_type=TensorProto.FLOAT,
            dims=place.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", location), ("offset", place.offset), ("length", place.size_bytes)):
            tensor.external_data.add(key=key, value=str(value))
