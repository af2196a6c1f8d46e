"""Activation recomputation: what the backward pass would keep alive is made a second time instead.

Chen et al., 'Training Deep Nets with Sublinear Memory Cost' (arXiv 1604.06174), layer by layer; 'selective'
keeps what is dear to compute, as Korthikanti et al. (arXiv 2205.05198) do. A barrier that waits for the
gradient at the layer's end holds the second computation back until the backward pass has come there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from onnx import ModelProto, NodeProto, helper

from export.graphs.graph_builder import scope_of
from export.graphs.graph_edit import ancestors, copy_of, drop_dead, reads_of, rename_reads, replace_nodes
from export.graphs.linear_layers import block_of
from export.graphs.microsoft import MICROSOFT
from export.training.gradient import TASK_LOSS
from export.training.lora_graph import LORA_SUM
from hetlora.manifest import Recompute

_PRODUCTS: Final = ("MatMul", "FusedMatMul", "Gemm", "Conv")


def recompute_activations(training: ModelProto, how: Recompute, weights: Collection[str]) -> None:
    """Edit a differentiated graph: `selective` keeps products with a weight, `layer` the layers' inputs."""
    if how == "none":
        return
    graph = training.graph
    forward = ancestors(graph.node, TASK_LOSS)
    made_in_forward = {output for node in forward for output in node.output}
    plan = _Plan(forward, made_in_forward - _kept(forward, how, set(weights)), made_in_forward)
    backward = [node for node in graph.node if node.output[0] not in made_in_forward]
    nodes = list(forward)
    wanted = _wanted_by_layer(plan, backward)
    renamed: dict[str, str] = {}
    waiting = dict(wanted)
    made_in_backward = {output for node in backward for output in node.output}
    for node in backward:
        for layer in [layer for layer, tensors in waiting.items() if tensors & reads_of(node)]:
            token = next((name for name in node.input if name in made_in_backward), None)
            if token is None:  # such a node reads what the forward pass made
                continue
            nodes += plan.clones(layer, waiting.pop(layer), token, renamed)
        rename_reads([node], renamed)
        nodes.append(node)
    replace_nodes(graph, nodes)
    drop_dead(graph)


AGAIN: Final = "again/"


@dataclass(frozen=True, slots=True)
class _Plan:
    """The forward nodes in order, what they make, and what of it need not stay in memory."""

    forward: list[NodeProto]
    again: set[str]
    made: set[str]

    def clones(self, layer: str, wanted: set[str], token: str, renamed: dict[str, str]) -> list[NodeProto]:
        """The nodes that make `wanted` again once `token` is there; `renamed` learns what they make."""
        needed, chosen = set(wanted), []
        for node in reversed(self.forward):
            if needed.intersection(node.output):
                chosen.append(node)
                needed |= self.again.intersection(node.input)
        copies = [copy_of(node) for node in reversed(chosen)]
        made = {name for node in copies for name in node.output}
        entering = sorted({name for node in copies for name in node.input} & self.made - made)
        names = {name: f"{AGAIN}{name}" for name in made if name}
        renamed |= names
        names |= {name: f"{AGAIN}{layer}/{name}" for name in entering}
        for copy in copies:
            copy.name = f"{AGAIN}{copy.name}"
            copy.input[:] = [names.get(name, name) for name in copy.input]
            copy.output[:] = [names.get(name, name) for name in copy.output]
        barrier = helper.make_node(
            "PassThrough",
            [*entering, token],
            [*(names[name] for name in entering), f"{AGAIN}{layer}/token"],
            name=f"{AGAIN}{layer}/barrier",
            domain=MICROSOFT,
        )
        return [barrier, *copies]


def _kept(forward: list[NodeProto], how: Recompute, weights: set[str]) -> set[str]:
    """Outputs of nodes outside the layers, read by another layer and, if selective, of dear nodes."""
    layers = {output: block_of(scope_of(node)) for node in forward for output in node.output}
    kept = {name for name, layer in layers.items() if layer is None}
    for node in forward:
        own = block_of(scope_of(node))
        kept |= {name for name in reads_of(node) if name in layers and layers[name] != own}
    if how == "selective":
        is_dear = _dear_to_compute(weights)
        kept |= {output for node in forward if is_dear(node) for output in node.output}
    return kept


def _dear_to_compute(weights: set[str]) -> Callable[[NodeProto], bool]:
    def is_dear(node: NodeProto) -> bool:
        # The sum with the LoRA branch stands for both products that it is made of.
        return node.name.endswith(LORA_SUM) or (
            node.op_type in _PRODUCTS and any(name in weights or ".lora_" in name for name in node.input[1:])
        )

    return is_dear


def _wanted_by_layer(plan: _Plan, backward: list[NodeProto]) -> dict[str, set[str]]:
    """What the backward pass reads and can be made again, by layer."""
    layers = {output: block_of(scope_of(node)) for node in plan.forward for output in node.output}
    wanted: dict[str, set[str]] = {}
    for node in backward:
        for name in reads_of(node) & plan.again:
            layer = layers[name]
            if layer is not None:
                wanted.setdefault(layer, set()).add(name)
    return wanted
