"""Activation recomputation: activations that the backward pass would keep alive are computed again instead.

Chen et al., 'Training Deep Nets with Sublinear Memory Cost' (arXiv 1604.06174), layer by layer; 'selective'
keeps what is expensive to recompute, as Korthikanti et al. (arXiv 2205.05198) do. A barrier that waits for
the gradient at the layer's end holds recomputation back until the backward pass has come there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from onnx import ModelProto, NodeProto, helper

from export.graphs.graph_edit import (
    ancestors,
    copy_of,
    drop_dead,
    reads_of,
    rename_reads,
    replace_nodes,
    scope_of,
)
from export.graphs.linear_layers import block_of
from export.graphs.microsoft import MICROSOFT
from export.graphs.products import PRODUCTS
from export.training.gradient import TASK_LOSS
from export.training.lora_graph import LORA_SUM
from hetlora.manifest import Recompute

RECOMPUTED: Final = "recomputed/"  # what the names of such tensors and nodes begin with

_EXPENSIVE: Final = (*PRODUCTS, "Conv")


def recompute_activations(training: ModelProto, how: Recompute, weights: Collection[str]) -> None:
    """Edit a differentiated graph: `selective` keeps products with a weight, `layer` the layers' inputs."""
    if how == "none":
        return
    graph = training.graph
    forward = ancestors(graph.node, TASK_LOSS)
    made_in_forward = {output for node in forward for output in node.output}
    plan = _Plan(forward, made_in_forward, made_in_forward - _kept(forward, how, set(weights)))
    backward = [node for node in graph.node if node.output[0] not in made_in_forward]
    nodes = list(forward)
    renamed: dict[str, str] = {}
    waiting = _wanted_by_layer(plan, backward)
    made_in_backward = {output for node in backward for output in node.output}
    for node in backward:
        for layer in [layer for layer, tensors in waiting.items() if tensors & reads_of(node)]:
            token = next((name for name in node.input if name in made_in_backward), None)
            if token is None:  # such a node reads what the forward pass made
                continue
            nodes += plan.recomputation(layer, waiting.pop(layer), token, renamed)
        rename_reads([node], renamed)
        nodes.append(node)
    replace_nodes(graph, nodes)
    drop_dead(graph)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The forward nodes in order, what they make, and what of it is not kept but recomputed."""

    forward: list[NodeProto]
    made: set[str]
    recomputed: set[str]

    def recomputation(
        self, layer: str, wanted: set[str], token: str, renamed: dict[str, str]
    ) -> list[NodeProto]:
        """The nodes that recompute `wanted` once `token` is there; `renamed` learns what they make."""
        needed, chosen = set(wanted), []
        for node in reversed(self.forward):
            if needed.intersection(node.output):
                chosen.append(node)
                needed |= self.recomputed.intersection(node.input)
        copies = [copy_of(node) for node in reversed(chosen)]
        made = {name for node in copies for name in node.output}
        entering = sorted({name for node in copies for name in node.input} & self.made - made)
        names = {name: f"{RECOMPUTED}{name}" for name in made if name}
        renamed |= names
        names |= {name: f"{RECOMPUTED}{layer}/{name}" for name in entering}
        for copy in copies:
            copy.name = f"{RECOMPUTED}{copy.name}"
            copy.input[:] = [names.get(name, name) for name in copy.input]
            copy.output[:] = [names.get(name, name) for name in copy.output]
        barrier = helper.make_node(
            "PassThrough",
            [*entering, token],
            [*(names[name] for name in entering), f"{RECOMPUTED}{layer}/token"],
            name=f"{RECOMPUTED}{layer}/barrier",
            domain=MICROSOFT,
        )
        return [barrier, *copies]


def _kept(forward: list[NodeProto], how: Recompute, weights: set[str]) -> set[str]:
    """Outputs of nodes outside the layers, those read by another layer and, if selective, expensive ones."""
    layers = {output: block_of(scope_of(node.name)) for node in forward for output in node.output}
    kept = {name for name, layer in layers.items() if layer is None}
    for node in forward:
        own = block_of(scope_of(node.name))
        kept |= {name for name in reads_of(node) if name in layers and layers[name] != own}
    if how == "selective":
        kept |= {output for node in forward if _is_expensive(node, weights) for output in node.output}
    return kept


def _is_expensive(node: NodeProto, weights: set[str]) -> bool:
    """Whether a node multiplies with a weight."""
    # The sum with the LoRA branch stands for both products that it is made of.
    return node.name.endswith(LORA_SUM) or (
        node.op_type in _EXPENSIVE and any(name in weights or ".lora_" in name for name in node.input[1:])
    )


def _wanted_by_layer(plan: _Plan, backward: list[NodeProto]) -> dict[str, set[str]]:
    """What the backward pass reads of what is recomputed, by layer."""
    layers = {output: block_of(scope_of(node.name)) for node in plan.forward for output in node.output}
    wanted: dict[str, set[str]] = {}
    for node in backward:
        for name in sorted(reads_of(node) & plan.recomputed):
            layer = layers[name]
            if layer is not None:
                wanted.setdefault(layer, set()).add(name)
    return wanted
