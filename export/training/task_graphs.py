"""The training, evaluation and inference graph that grow out of one forward graph with LoRA in it."""

from __future__ import annotations

from collections.abc import Sequence
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
from export.training.training_graph import complete_training, with_gradients
from hetlora.adapter import AdapterSpec, ModuleSpec
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
    forward: ModelProto,
    spec: AdapterSpec,
    trained: Sequence[ModuleSpec],
    weights: set[str],
    recompute: Recompute,
) -> TaskGraphs:
    """The graphs of a forward graph whose one output is LOGITS (batch, labels); `trained` have gradients.

    Raises:
        ModelNotExportable: as `with_gradients`.
    """
    scored = copy_of(forward)
    add_cross_entropy(scored.graph, TASK_LOSS)
    GraphBuilder(scored.graph).only_outputs({TASK_LOSS: []})
    training = with_gradients(scored, spec, trained)
    fold_transposes(training.graph, weights)
    recompute_activations(training, recompute, weights)
    complete_training(training, spec, trained)

    inference = simplify(with_factor_inputs(forward, spec))
    evaluation = copy_of(inference)
    add_cross_entropy(evaluation.graph, LOSS)
    _make_plain(evaluation, weights)
    _make_plain(inference, weights)
    return TaskGraphs(training, evaluation, inference)


def generator_graphs(
    forward: ModelProto,
    spec: AdapterSpec,
    trained: Sequence[ModuleSpec],
    head: OutputHead,
    weights: set[str],
    recompute: Recompute,
    decoder: DecoderStart | None = None,
) -> TaskGraphs:
    """The graphs of a forward graph whose one output is LOGITS (batch, tokens, vocabulary).

    `decoder` is given for sequence-to-sequence models; their labels are not shifted against the logits.

    Raises:
        ModelNotExportable: as `with_gradients`.
    """
    labelled, shift = copy_of(forward), decoder is None
    if decoder is not None:
        feed_labels_to_decoder(labelled, start=decoder.start, padding=decoder.padding)

    scored = copy_of(labelled)
    add_surrogate(scored, head)
    training = with_gradients(scored, spec, trained)
    replace_surrogate(training, head, shift=shift)
    fold_transposes(training.graph, weights)
    recompute_activations(training, recompute, weights)
    complete_training(training, spec, trained)

    expose_rows(labelled, head)
    evaluation = simplify(with_factor_inputs(labelled, spec))
    add_chunked_loss(GraphBuilder(evaluation.graph), head, shift=shift, loss=LOSS)
    GraphBuilder(evaluation.graph).only_outputs({LOSS: []})
    _make_plain(evaluation, weights)

    inference = simplify(with_factor_inputs(forward, spec))
    _make_plain(inference, weights)
    return TaskGraphs(training, evaluation, inference)


def _make_plain(model: ModelProto, weights: set[str]) -> None:
    fold_transposes(model.graph, weights)
    _use_plain_operators(model.graph)


def _use_plain_operators(graph: GraphProto) -> None:
    """Let every build of ONNX Runtime open the graph; the training build's operators have an output more."""
    for node in graph.node:
        if node.op_type in ("ConcatTraining", "SplitTraining"):
            node.op_type, node.domain = node.op_type.removesuffix("Training"), ""
            if node.op_type == "Concat":
                del node.output[1:]
