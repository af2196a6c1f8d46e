"""From a forward graph to what a device trains with: gradients at symbolic ranks, and AdamW."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import drop_inputs, subgraphs
from export.graphs.microsoft import MICROSOFT
from export.training.execution_order import take_gradients_early
from export.training.gradient import TASK_LOSS, accumulate_gradients, differentiate, gradient_name, simplify
from export.training.lora_graph import RANK, FactorShapes, factor_shapes, rank_symbol, with_factor_inputs
from export.training.pruning_penalty import add_pruning_penalty
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.errors import ModelNotExportable
from hetlora.manifest import OptimizerInfo

# torch.optim.AdamW's defaults, but for the weight decay: HetLoRA's own penalty is the regulariser.
ADAMW: Final = OptimizerInfo(name="AdamW", beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0)
# Large enough not to be mistaken for an enumeration value, and no usual width is prime.
_MARKERS: Final = (31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
_MAX_AXES: Final = 8


def with_gradients(forward: ModelProto, spec: AdapterSpec, trained: Sequence[ModuleSpec]) -> ModelProto:
    """A spliced forward graph, whose one output is TASK_LOSS, with its backward pass.

    The outputs are TASK_LOSS and the gradient of each factor of `trained`. In the shapes that were inferred
    every rank is RANK; the factors themselves are inputs of some rank still, which `complete_training`
    replaces.

    Raises:
        ModelNotExportable: an operator without gradient, or a gradient that depends on the rank.
    """
    marker = _free_marker(forward)
    with_factors = with_factor_inputs(forward, spec, marker)
    training = differentiate(simplify(with_factors), factor_shapes(trained, marker))
    _check_rank_is_free(training, marker)
    _name_rank(training, marker)
    return training


def complete_training(training: ModelProto, spec: AdapterSpec, trained: Sequence[ModuleSpec]) -> None:
    """Make a graph `with_gradients` what devices run: every rank a symbol, the penalty, sums of gradients."""
    shapes = factor_shapes(trained, rank_symbol)
    _put_inputs_last(training, factor_shapes(spec.modules, rank_symbol), shapes)
    gradients = {key: gradient_name(key) for key in shapes}
    whole = add_pruning_penalty(training.graph, trained, gradients, loss=TASK_LOSS)
    accumulate_gradients(training, shapes, whole)
    take_gradients_early(training, gradients.values())


def build_optimizer(opset: int) -> ModelProto:
    """One step of torch.optim.AdamW over sequences of parameters, gradients and both moments."""
    float_sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    inputs = [
        helper.make_tensor_value_info("learning_rate", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("step", TensorProto.INT64, [1]),
        *(
            helper.make_value_info(name, float_sequence)
            for name in ("params", "gradients", "first_order_moments", "second_order_moments")
        ),
    ]
    node = helper.make_node(
        "AdamWOptimizer",
        [value.name for value in inputs],
        ["updated"],
        name="adamw",
        domain=MICROSOFT,
        alpha=ADAMW.beta1,
        beta=ADAMW.beta2,
        epsilon=ADAMW.epsilon,
        weight_decay=ADAMW.weight_decay,
        adam_mode=0,  # epsilon is added after the bias correction, as torch does; 1 adds it before
        correct_bias=1,
    )
    graph = helper.make_graph(
        [node], "optimizer", inputs, [helper.make_tensor_value_info("updated", TensorProto.BOOL, [1])]
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    )


def _put_inputs_last(training: ModelProto, shapes: FactorShapes, trained: FactorShapes) -> None:
    """What the Module expects: its user's inputs, then the parameters in the order of their gradients."""
    drop_inputs(training.graph, shapes)
    fed = {key: shape for key, shape in shapes.items() if key not in trained}
    for key, shape in {**fed, **trained}.items():
        GraphBuilder(training.graph).input(key, shape)


def _name_rank(training: ModelProto, marker: int) -> None:
    """Let the shapes that were inferred say RANK where they say the marker."""
    for value in training.graph.value_info:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value == marker:
                dim.dim_param = RANK


def _check_rank_is_free(training: ModelProto, marker: int) -> None:
    if marker in _constants(training):
        raise ModelNotExportable(
            "the gradient graph depends on the rank", got=f"a constant {marker}", expected="no such constant"
        )


def _free_marker(forward: ModelProto) -> int:
    """A prime that stands for the rank and occurs nowhere else in the graph."""
    taken = set(_constants(forward))
    for value in [*forward.graph.input, *forward.graph.output]:
        taken.update(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    free = next((prime for prime in _MARKERS if prime not in taken), None)
    if free is None:
        raise ModelNotExportable(
            "no marker for the rank is free",
            got=f"all of {_MARKERS} in the graph",
            expected="one that is not",
        )
    return free


def _constants(model: ModelProto) -> Iterator[int]:
    """Every whole number in the graph's attributes and in constants small enough to be shapes."""
    tensors = list(model.graph.initializer)
    nodes = list(model.graph.node)
    for node in nodes:
        nodes.extend(inner for graph in subgraphs(node) for inner in graph.node)
        for attribute in node.attribute:
            yield attribute.i
            yield from attribute.ints
            if attribute.type == AttributeProto.TENSOR:
                tensors.append(attribute.t)
    for tensor in tensors:
        if tensor.data_type == TensorProto.INT64 and sum(tensor.dims) <= _MAX_AXES:
            yield from numpy_helper.to_array(tensor).ravel().tolist()
