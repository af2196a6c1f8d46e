"""The training graph for ordinary sessions: gradients are outputs, and nothing is kept between two calls."""

from __future__ import annotations

from onnx import ModelProto

from export.graphs.graph_builder import Dims, GraphBuilder
from export.graphs.graph_edit import copy_of, drop_dead, replace_nodes
from export.graphs.shapes import shape_of
from export.training.gradient import TASK_LOSS, gradient_name
from hetlora.adapter import ModuleSpec
from hetlora.graph_names import LOSS
from hetlora.tensors import factor_keys


def with_gradient_outputs(training: ModelProto, trained: tuple[ModuleSpec, ...]) -> ModelProto:
    """A copy of a complete training graph that answers LOSS and the gradient of each trained factor.

    Accumulation and the pruning penalty are left out: both are the host's affair.
    """
    model = copy_of(training)
    graph = model.graph
    shapes = {value.name: shape_of(value) for value in graph.input}
    outputs: dict[str, Dims | None] = {LOSS: []}
    for module in trained:
        for key in factor_keys(module.name):
            outputs[gradient_name(key)] = shapes[key]
    # The branch of the penalty is what makes LOSS; without it, the task's own loss is the whole one.
    replace_nodes(graph, [node for node in graph.node if LOSS not in node.output])
    builder = GraphBuilder(graph)
    builder.node("Identity", [TASK_LOSS], LOSS)
    builder.only_outputs(outputs)
    drop_dead(model.graph)
    return model
