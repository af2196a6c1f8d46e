"""Finds what makes the logits of a language model: the last hidden states times the vocabulary's matrix."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto, NodeProto, numpy_helper

from export.graphs.graph_edit import in_words
from export.graphs.linear_layers import linear_layers
from hetlora.errors import ModelNotExportable
from hetlora.graph_names import LOGITS


@dataclass(frozen=True, slots=True)
class OutputHead:
    """logits = softcap(hidden W^T): softcap(x) = c tanh(x / c), where there is one.

    `weight` names W of (vocabulary, hidden_size), `product` the tensor hidden W^T.
    """

    hidden: str
    weight: str
    product: str
    vocabulary: int
    hidden_size: int
    softcap: float | None


def find_output_head(model: ModelProto) -> OutputHead:
    """The head of a cleaned graph whose output is LOGITS.

    Raises:
        ModelNotExportable: the logits are made in another way; the message names the operator and the module.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    node = made_by[LOGITS]
    softcap = None
    if node.op_type == "Mul":
        node, softcap = _before_softcap(model, node, made_by)
    layers = {layer.output: layer for layer in linear_layers(model).values()}
    layer = layers.get(node.output[0])
    if layer is None or not layer.transposed:
        raise ModelNotExportable(
            f"{in_words(node)} makes the logits",
            expected="the last hidden states times the vocabulary's matrix, with or without softcap",
        )
    return OutputHead(layer.input, layer.weight, layer.output, layer.out_features, layer.in_features, softcap)


def _before_softcap(
    model: ModelProto, last: NodeProto, made_by: dict[str, NodeProto]
) -> tuple[NodeProto, float | None]:
    """The node whose output is capped, and the cap; or `last` itself where it is no softcap."""
    numbers = {
        tensor.name: float(value.item())
        for tensor in model.graph.initializer
        if (value := numpy_helper.to_array(tensor)).size == 1
    }
    cap = numbers.get(last.input[1])
    tanh = made_by.get(last.input[0])
    quotient = made_by.get(tanh.input[0]) if tanh is not None and tanh.op_type == "Tanh" else None
    if quotient is None or quotient.op_type != "Div" or cap is None or numbers.get(quotient.input[1]) != cap:
        return last, None
    return made_by[quotient.input[0]], cap
