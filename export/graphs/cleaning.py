"""Brings a traced graph into the form that the later passes read, and that a gradient can be built from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graphs.graph_edit import (
    bypass,
    bypass_identities,
    copy_of,
    drop_dead,
    replace_nodes,
    strip_notes,
)


def clean(model: ModelProto) -> ModelProto:
    """The same function without constants as nodes, casts that do nothing, stack traces and unread nodes."""
    graph = model.graph
    _constants_to_initializers(graph)
    bypass_identities(graph)
    shaped = onnx.shape_inference.infer_shapes(model)  # for the element types
    _drop_idle_casts(shaped.graph)
    _split_gemms(shaped.graph)
    _complete_normalizations(shaped.graph)
    _fuse_rms_normalizations(shaped.graph)
    drop_dead(shaped.graph)
    strip_notes(shaped)
    return shaped


def _constants_to_initializers(graph: GraphProto) -> None:
    kept = []
    for node in graph.node:
        if node.op_type == "Constant":
            tensor = copy_of(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    replace_nodes(graph, kept)


def _drop_idle_casts(graph: GraphProto) -> None:
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    bypass(graph, lambda node: node.op_type == "Cast" and types.get(node.input[0]) == node.attribute[0].i)


def _split_gemms(graph: GraphProto) -> None:
    """Gemm with a weight becomes MatMul and Add, as every linear layer on three axes is traced."""
    weights = {value.name for value in graph.input}
    kept = []
    for node in graph.node:
        if node.op_type == "Gemm" and node.input[1] in weights:
            kept += _without_gemm(node)
        else:
            kept.append(node)
    replace_nodes(graph, kept)


def _without_gemm(gemm: NodeProto) -> list[NodeProto]:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in gemm.attribute}
    plain = all(attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    if not plain or attributes.get("transA") or len(gemm.input) != 3:
        return [gemm]
    # The node's own name, which no other has, and whose scope is that of the layer.
    stem = gemm.name or gemm.output[0]
    x, weight, bias = gemm.input
    nodes = []
    if attributes.get("transB"):
        name = f"{stem}_transpose"
        nodes.append(helper.make_node("Transpose", [weight], [f"{name}_output_0"], name=name, perm=[1, 0]))
        weight = f"{name}_output_0"
    product = f"{stem}_product"
    nodes.append(helper.make_node("MatMul", [x, weight], [f"{product}_output_0"], name=product))
    nodes.append(helper.make_node("Add", [f"{product}_output_0", bias], gemm.output, name=f"{stem}_sum"))
    return nodes


def _complete_normalizations(graph: GraphProto) -> None:
    # The gradient builder reads the two outputs that inference leaves out.
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            output = node.output[0]
            del node.output[1:]
            node.output.extend([f"{output}_mean", f"{output}_inverse_deviation"])


_CHAIN: Final = ("Pow", "ReduceMean", "Add", "Sqrt")


def _fuse_rms_normalizations(graph: GraphProto) -> None:
    """x / sqrt(mean(x^2) + epsilon) * weight becomes one node, whose gradient is one node too."""
    surroundings = _Surroundings.of(graph)
    fused: dict[str, NodeProto] = {}
    gone: set[str] = set()
    for power in graph.node:
        found = _rms_normalization(power, surroundings) if power.op_type == "Pow" else None
        if found is not None:
            made, replaced = found
            fused[made.output[0]] = made
            gone |= replaced
    kept = (fused.get(node.output[0], node) for node in graph.node if node.output[0] not in gone)
    replace_nodes(graph, kept)


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """Who reads a tensor, the values of constants, and the rank of whatever is known."""

    readers: dict[str, list[NodeProto]]
    constants: dict[str, TensorProto]
    ranks: dict[str, int]

    @classmethod
    def of(cls, graph: GraphProto) -> _Surroundings:
        readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                readers[name].append(node)
        values = (*graph.value_info, *graph.input)
        ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
        return cls(readers, {tensor.name: tensor for tensor in graph.initializer}, ranks)

    def only_reader(self, node: NodeProto, op_type: str) -> NodeProto | None:
        following = self.readers[node.output[0]]
        return following[0] if len(following) == 1 and following[0].op_type == op_type else None

    def number(self, name: str) -> float | None:
        """The value of a constant with a single element."""
        tensor = self.constants.get(name)
        values = None if tensor is None else numpy_helper.to_array(tensor)
        return None if values is None or values.size != 1 else float(values.item())


def _rms_normalization(power: NodeProto, near: _Surroundings) -> tuple[NodeProto, set[str]] | None:
    """The node that replaces the chain which begins with `power`, and the outputs that go with the chain."""
    chain = [power]
    for wanted in _CHAIN[1:]:
        following = near.only_reader(chain[-1], wanted)
        if following is None:
            return None
        chain.append(following)
    x, (_, mean, add, root) = power.input[0], chain
    constants = [value for name in add.input if (value := near.number(name)) is not None]
    last_axis = len(mean.input) > 1 and near.number(mean.input[1]) == -1
    quotient = near.only_reader(root, "Div")
    if near.number(power.input[1]) != 2 or len(constants) != 1 or not last_axis or quotient is None:
        return None
    chain.append(quotient)
    if quotient.input[0] != x:  # 1 / sqrt(..), then x times it
        product = near.only_reader(quotient, "Mul")
        if near.number(quotient.input[0]) != 1 or product is None or x not in product.input:
            return None
        chain.append(product)
    scaled = near.only_reader(chain[-1], "Mul")
    if scaled is None:
        return None
    weight = next(name for name in scaled.input if name != chain[-1].output[0])
    if near.ranks.get(weight) != 1:
        return None
    output = scaled.output[0]
    node = helper.make_node(
        "SimplifiedLayerNormalization",
        [x, weight],
        [output, f"{output}_inverse_deviation"],
        name=scaled.name,
        axis=-1,
        epsilon=constants[0],
        stash_type=1,
    )
    return node, {name for link in chain for name in link.output}
