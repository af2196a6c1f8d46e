"""From a model's configuration and a recipe to the graphs of a bundle, without a single weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeGuard

from onnx import ModelProto
from transformers import PretrainedConfig, PreTrainedModel

from export.graphs.cleaning import clean
from export.graphs.graph_edit import in_words
from export.graphs.linear_layers import linear_layers
from export.graphs.output_head import OutputHead, find_output_head
from export.graphs.products import is_row_lookup
from export.graphs.shapes import shape_of
from export.graphs.targets import choose_targets
from export.recipe import Recipe
from export.source.model_folder import check_positions
from export.source.tracing import trace, weightless_model
from export.training.classifier_graph import add_prototype_head
from export.training.lora_graph import splice_lora
from export.training.task_graphs import DecoderStart, TaskGraphs, classifier_graphs, generator_graphs
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.errors import ModelNotExportable
from hetlora.graph_names import DECODER_INPUT_IDS, PIXEL_VALUES, TOKEN_INPUTS
from hetlora.manifest import TensorInput, generates_text, has_decoder, reads_images

_VALUE_DEPENDENT: Final = ("NonZero", "Compress", "Unique")
_FED: Final = (*TOKEN_INPUTS, PIXEL_VALUES, DECODER_INPUT_IDS)


@dataclass(frozen=True, slots=True)
class Compiled:
    """The graphs that came of a recipe, and what is known of the weights that they take.

    `shapes` are of all frozen weights by name, `tables` those whose rows are looked up. `network` has no
    weights, `head` is None where no text is generated.
    """

    recipe: Recipe
    graphs: TaskGraphs
    spec: AdapterSpec
    trained: tuple[ModuleSpec, ...]  # of its modules, which as a rule are all
    inputs: tuple[TensorInput, ...]
    shapes: dict[str, tuple[int, ...]]
    tables: set[str]
    network: PreTrainedModel
    head: OutputHead | None


def compile_model(config: PretrainedConfig, recipe: Recipe, progress: Callable[[str], None]) -> Compiled:
    """Trace a model, put LoRA beside its layers and differentiate it.

    Raises:
        ModelNotExportable: whatever about model or recipe stands in the way, see the steps.
        RankOutOfRange: the recipe's `max_rank` does not fit every target.
    """
    progress("tracing the model")
    network = weightless_model(config, recipe.task)
    if not reads_images(recipe.task):
        check_positions(network, config, recipe.max_tokens)
    forward = clean(trace(network, recipe.task))
    _check_shapes_are_fixed(forward)
    modules = choose_targets(forward, recipe.targets, last_layers=recipe.last_layers)
    spec = AdapterSpec(modules, recipe.scaling, recipe.max_rank)
    trained = _trained(forward, spec, recipe)
    head = _output_head(forward, spec) if generates_text(recipe.task) else None
    splice_lora(forward, spec)
    if recipe.labels:
        add_prototype_head(forward, len(recipe.labels), _hidden_size(config))
    shapes = {
        value.name: tuple(int(size) for size in shape_of(value))
        for value in forward.graph.input
        if value.name not in _FED
    }
    tables = {node.input[0] for node in forward.graph.node if is_row_lookup(node)} & shapes.keys()
    progress(f"building graphs for {len(modules)} LoRA modules")
    return Compiled(
        recipe=recipe,
        graphs=_build(forward, spec, trained, head, set(shapes), recipe, config),
        spec=spec,
        trained=trained,
        inputs=_inputs(forward),
        shapes=shapes,
        tables=tables | ({head.weight} if head is not None else set()),
        network=network,
        head=head,
    )


def _trained(forward: ModelProto, spec: AdapterSpec, recipe: Recipe) -> tuple[ModuleSpec, ...]:
    if recipe.trained_layers is None:
        return spec.modules
    last = choose_targets(forward, recipe.targets, last_layers=recipe.trained_layers)
    return tuple(module for module in spec.modules if module in last)


def _build(
    forward: ModelProto,
    spec: AdapterSpec,
    trained: tuple[ModuleSpec, ...],
    head: OutputHead | None,
    weights: set[str],
    recipe: Recipe,
    config: PretrainedConfig,
) -> TaskGraphs:
    if head is None:
        return classifier_graphs(forward, spec, trained, weights, recipe.recompute)
    decoder = _decoder_start(config, head.vocabulary) if has_decoder(recipe.task) else None
    return generator_graphs(forward, spec, trained, head, weights, recipe.recompute, decoder)


def _hidden_size(config: PretrainedConfig) -> int:
    size = getattr(config, "hidden_size", None)
    if not isinstance(size, int):
        raise ModelNotExportable(
            "the model's configuration does not say how wide its hidden states are",
            got=f"{config.model_type} with hidden_size {size!r}",
            expected="an encoder of text alone",
        )
    return size


def _decoder_start(config: PretrainedConfig, vocabulary: int) -> DecoderStart:
    start, padding = config.decoder_start_token_id, config.pad_token_id
    if _is_token(start, vocabulary) and _is_token(padding, vocabulary):
        return DecoderStart(start, padding)
    raise ModelNotExportable(
        "the model's configuration does not say how its decoder begins",
        got=f"decoder_start_token_id {start!r}, pad_token_id {padding!r}",
        expected=f"tokens from 0 to {vocabulary - 1}",
    )


def _is_token(found: object, vocabulary: int) -> TypeGuard[int]:
    return type(found) is int and 0 <= found < vocabulary


def _check_shapes_are_fixed(forward: ModelProto) -> None:
    """Raise where the number of rows depends on values: an expert that no token chooses gets none."""
    node = next((node for node in forward.graph.node if node.op_type in _VALUE_DEPENDENT), None)
    if node is not None:
        raise ModelNotExportable(
            f"shapes depend on values: {in_words(node)}",
            expected="a model whose shapes follow from texts and tokens alone, so without chosen experts",
        )


def _output_head(forward: ModelProto, spec: AdapterSpec) -> OutputHead:
    head = find_output_head(forward)
    layers = linear_layers(forward)
    adapted = [name for name in spec.by_name if layers[name].output == head.product]
    if adapted:
        raise ModelNotExportable(
            "the layer that makes the logits cannot be a LoRA target: they are made chunk by chunk",
            got=adapted[0],
            expected="layers within the transformer blocks",
        )
    return head


def _inputs(forward: ModelProto) -> tuple[TensorInput, ...]:
    """The inputs that the device's examples fill, in the graph's order."""
    inputs = []
    for value in forward.graph.input:
        if value.name in TOKEN_INPUTS:
            inputs.append(TensorInput(name=value.name, dtype="int64", shape=("batch", "tokens")))
        elif value.name == PIXEL_VALUES:
            inputs.append(TensorInput(name=value.name, dtype="float32", shape=shape_of(value)))
    return tuple(inputs)
