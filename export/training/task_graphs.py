"""The training, evaluation and inference graph that grow out of one forward graph with LoRA in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import GraphProto, ModelProto

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import copy_of
from export.graphs.output_head import OutputHead
from export.graphs.products import fold_transposes
from export.training.causal_loss import add_chunked_loss, add_surrogate, expose_rows, replace_surrogate
from export.training.classifier_graph import add_cross_entropy
from export.training.decoder_labels import feed_labels_to_decoder
from export.training.gradient import TASK_LOSS, simplify
from export.training.lora_graph import with_factor_inputs
from export.training.recomputation import recompute_activations
from export.training.training_graph import build_training
from hetlora.adapter import AdapterSpec
from hetlora.graph_names import LOSS
from hetlora.manifest import Recompute


@dataclass(frozen=True, slots=True)
class TaskGraphs:
    """Graphs whose weights are inputs still."""

    training: ModelProto
    eval: ModelProto
    inference: ModelProto


@dataclass(frozen=True, slots=True)
class DecoderStart:
    """The tokens that a sequence-to-sequence decoder reads first, and where labels are ignored."""

    start: int
    padding: int


def classifier_graphs(
    forward: ModelProto, spec: AdapterSpec, weights: set[str], recompute: Recompute
) -> TaskGraphs:
    """The graphs of a forward graph whose one output is LOGITS (batch, labels).

    Raises:
        ModelNotExportable: as `build_training`.
    """
    scored = copy_of(forward)
    del scored.graph.output[:]
    add_cross_entropy(scored.graph, TASK_LOSS)
    training = build_training(scored, spec, _finish(weights, recompute))
    inference = simplify(with_factor_inputs(forward, spec))
    evaluation = copy_of(inference)
    add_cross_entropy(evaluation.graph, LOSS)
    return _folded(training, evaluation, inference, weights)


def generator_graphs(
    forward: ModelProto,
    spec: AdapterSpec,
    head: OutputHead,
    weights: set[str],
    recompute: Recompute,
    decoder: DecoderStart | None = None,
) -> TaskGraphs:
    """The graphs of a forward graph whose one output is LOGITS (batch, tokens, vocabulary).

    `decoder` is given for sequence-to-sequence models; their labels are not shifted against the logits.

    Raises:
        ModelNotExportable: as `build_training`.
    """
    inference = simplify(with_factor_inputs(forward, spec))
    labelled = copy_of(forward)
    if decoder is not None:
        feed_labels_to_decoder(labelled, start=decoder.start, padding=decoder.padding)
    shift = decoder is None
    surrogate = copy_of(labelled)
    add_surrogate(surrogate, head)
    training = build_training(
        surrogate,
        spec,
        _finish(weights, recompute, lambda built: replace_surrogate(built, head, shift=shift)),
    )
    expose_rows(labelled, head)
    evaluation = simplify(with_factor_inputs(labelled, spec))
    add_chunked_loss(evaluation.graph, head, shift=shift, loss=LOSS)
    del evaluation.graph.output[:]
    GraphBuilder(evaluation.graph).output(LOSS, [])
    return _folded(training, evaluation, inference, weights)


def _finish(
    weights: set[str], recompute: Recompute, first: Callable[[ModelProto], None] = lambda built: None
) -> Callable[[ModelProto], None]:
    def finish(built: ModelProto) -> None:
        first(built)
        fold_transposes(built.graph, weights)
        recompute_activations(built, recompute, weights)

    return finish


def _folded(
    training: ModelProto, evaluation: ModelProto, inference: ModelProto, weights: set[str]
) -> TaskGraphs:
    for model in (evaluation, inference):
        fold_transposes(model.graph, weights)
        _use_plain_operators(model.graph)
    return TaskGraphs(training, evaluation, inference)


def _use_plain_operators(graph: GraphProto) -> None:
    """Let every build of ONNX Runtime open the graph; the training build's operators have an output more."""
    for node in graph.node:
        if node.op_type in ("ConcatTraining", "SplitTraining"):
            node.op_type, node.domain = node.op_type.removesuffix("Training"), ""
            if node.op_type == "Concat":
                del node.output[1:]
