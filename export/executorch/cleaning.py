"""Removes from a traced program what ExecuTorch, or the delegate that it lowers to, cannot take."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

aten = torch.ops.aten

# A part of the graph in which nothing else stands makes the XNNPACK delegate fail.
_IDENTITIES: Final = {
    aten.alias.default,
    aten.detach.default,
    aten.clone.default,
    aten._to_copy.default,
    aten.expand.default,
    aten.view.default,
    aten.slice.Tensor,
}


def clean(exported: ExportedProgram) -> None:
    """Drop, in place, what changes nothing and what ExecuTorch or its delegate cannot take."""
    module: GraphModule = exported.graph_module
    with module._set_replace_hook(exported.graph_signature.get_replace_hook()):
        for node in list(module.graph.nodes):
            if node.op == "call_function":
                _clean_node(module, node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _clean_node(module: GraphModule, node: Node) -> None:
    source: Any = node.args[0] if node.args else None
    if node.target is aten._assert_tensor_metadata.default:
        module.graph.erase_node(node)
    elif node.target in _IDENTITIES and _same_layout(node, source):
        _replace(module, node, source)
    elif node.target is aten.permute.default and _undoes(node, source):
        _replace(module, node, source.args[0])
    elif node.target is aten.full_like.default and source.target is aten.empty_permuted.default:
        # Out of silu's backward pass; ExecuTorch has no kernel for the uninitialised tensor.
        with module.graph.inserting_before(node):
            size, value = source.args[0], node.args[1]
            full = module.graph.call_function(
                aten.full.default, (size, value), {"dtype": node.meta["val"].dtype}
            )
        full.meta = dict(node.meta)
        _replace(module, node, full)


def _replace(module: GraphModule, node: Node, other: Node) -> None:
    node.replace_all_uses_with(other)
    module.graph.erase_node(node)


def _same_layout(node: Node, source: Any) -> bool:
    after, before = node.meta["val"], source.meta["val"]
    return bool(
        after.dtype == before.dtype and after.shape == before.shape and after.stride() == before.stride()
    )


def _undoes(node: Node, source: Any) -> bool:
    """Whether a permutation of a permutation leaves the axes as they were."""
    if source.target is not aten.permute.default:
        return False
    axes: Any = node.args[1]
    return [source.args[1][axis] for axis in axes] == list(range(len(axes)))
