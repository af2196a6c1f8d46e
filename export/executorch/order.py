"""Keeps the order of a program's operators while its parts go to a delegate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from executorch.exir import lowered_backend_module  # type: ignore[import-untyped]
from torch.fx import GraphModule, Node


@contextmanager
def order_kept() -> Iterator[None]:
    """Mend the order of the operators where a part was taken out, instead of sorting all of them anew.

    ExecuTorch sorts the whole graph after each of its parts, by copying it. That takes time with the square
    of the depth (84 s of CPU for 8 layers, 20 minutes for 30), and its order, breadth first, keeps results
    alive for longer: the planned memory of a training step was a fifth larger. There is no option for it.
    """
    sort = lowered_backend_module.legalize_graph
    lowered_backend_module.legalize_graph = _mend
    try:
        yield
    finally:
        lowered_backend_module.legalize_graph = sort


def _mend(module: GraphModule) -> GraphModule:
    """Move what reads the newest part's results, and stands before it, to behind it."""
    (part,) = module.graph.find_nodes(op="call_module", target=next(reversed(module._modules)))
    last = max([part, *part.users])  # the users take single results out of it
    late: set[Node] = set()
    waiting = [part, *part.users]
    while waiting:
        early = {user for user in waiting.pop().users if user < last and user not in part.users} - late
        late |= early
        waiting.extend(early)
    for node in sorted(late, reverse=True):
        last.append(node)
    return module
