"""The reading of a graph's bytes against protobuf's own, on whatever a model may hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from edge_sdk.runtimes.onnx_graph import external_data


def test_graph_of_graphs_without_end_is_refused() -> None:
    def model(graphs: int) -> bytes:
        data = b""
        for field in [6, 5, 1] * graphs + [7]:  # from within: g of an attribute, of a node, of a graph
            data = bytes([field << 3 | 2, len(data) & 0x7F | 0x80, len(data) >> 7]) + data
        return data

    assert list(external_data(model(33))) == []
    with pytest.raises(ValueError, match="more than 100 deep"):
        list(external_data(model(34)))


def _all_told(message: Message) -> Iterator[list[tuple[str, str]]]:
    """What `external_data` is to find, by protobuf's own description of every message."""
    if isinstance(message, TensorProto) and message.external_data:
        yield [(entry.key, entry.value) for entry in message.external_data]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                yield from _all_told(part)


_texts = st.text(max_size=3)
_tensors = st.builds(
    lambda name, raw, told: TensorProto(
        name=name, raw_data=raw, external_data=[{"key": key, "value": value} for key, value in told]
    ),
    _texts,
    st.binary(max_size=4),
    st.lists(st.tuples(_texts, _texts), max_size=2),
)
_sparse = st.builds(
    lambda values, indices: SparseTensorProto(values=values, indices=indices), _tensors, _tensors
)


def _graphs(nodes: st.SearchStrategy[NodeProto]) -> st.SearchStrategy[GraphProto]:
    return st.builds(
        lambda nodes, tensors, sparse: GraphProto(node=nodes, initializer=tensors, sparse_initializer=sparse),
        st.lists(nodes, max_size=2),
        st.lists(_tensors, max_size=2),
        st.lists(_sparse, max_size=1),
    )


def _attributes(graphs: st.SearchStrategy[GraphProto]) -> st.SearchStrategy[AttributeProto]:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "t": _tensors,
        "g": graphs,
        "tensors": st.lists(_tensors, max_size=2),
        "graphs": st.lists(graphs, max_size=2),
        "sparse_tensor": _sparse,
        "sparse_tensors": st.lists(_sparse, max_size=2),
        "floats": st.lists(st.floats(width=32), max_size=2),
        "ints": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2),
        "f": st.floats(width=32),
        "s": st.binary(max_size=3),
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: AttributeProto(**given))


_nodes = st.recursive(
    st.builds(lambda name: NodeProto(op_type=name, input=[name]), _texts),
    lambda nodes: st.lists(_attributes(_graphs(nodes)), max_size=2).map(
        lambda attributes: NodeProto(attribute=attributes)
    ),
    max_leaves=4,
)
_models = st.builds(
    lambda graph, nodes, defaults, training: ModelProto(
        ir_version=9,
        graph=graph,
        functions=[onnx.FunctionProto(node=nodes, attribute_proto=defaults)],
        training_info=[onnx.TrainingInfoProto(algorithm=training, initialization=training)],
    ),
    _graphs(_nodes),
    st.lists(_nodes, max_size=2),
    st.lists(_attributes(_graphs(_nodes)), max_size=1),
    _graphs(_nodes),
)


@settings(max_examples=60)
@given(_models)
def test_every_file_that_onnx_finds_is_found(model: ModelProto) -> None:
    found = [sorted(entry) for entry in external_data(model.SerializeToString())]
    assert sorted(found) == sorted(sorted(entry) for entry in _all_told(model))


@given(st.binary(max_size=60))
def test_no_bytes_make_anything_but_a_value_error(data: bytes) -> None:
    try:
        for entry in external_data(data):
            assert all(isinstance(text, str) for pair in entry for text in pair)
    except ValueError:
        pass
