"""The plain encoder as an ONNX graph, cleaned so that a gradient graph can be built from it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import onnx
from onnx import ModelProto
from optimum.exporters.onnx import export  # type: ignore[import-untyped]
from optimum.exporters.tasks import TasksManager  # type: ignore[import-untyped]
from transformers import PreTrainedModel

from hetlora.errors import ModelNotExportable
from hetlora.graph_names import ATTENTION_MASK, TOKEN_INPUTS
from hetlora.manifest import TensorInput

OPSET: Final = 18
HIDDEN: Final = "last_hidden_state"
_SYMBOLS: Final = {"batch_size": "batch", "sequence_length": "tokens"}


def export_encoder(encoder: PreTrainedModel) -> ModelProto:
    """Export an encoder with its weights: int64 inputs (batch, tokens), output (batch, tokens, hidden).

    Raises:
        ModelNotExportable: an architecture that Optimum does not know, or inputs that devices cannot fill.
    """
    architecture = encoder.config.model_type
    try:
        make_config = TasksManager.get_exporter_config_constructor(
            "onnx", model_type=architecture, task="feature-extraction", library_name="transformers"
        )
        with TemporaryDirectory(prefix="hetlora-") as folder:
            path = Path(folder) / "encoder.onnx"
            export(model=encoder, config=make_config(encoder.config), output=path, opset=OPSET)
            model = onnx.load(path)
    # Optimum and torch.onnx raise errors of many kinds for models that they cannot trace.
    except Exception as error:
        raise ModelNotExportable(
            f"architecture {architecture!r} cannot be exported",
            got=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}",
            expected="an encoder that Optimum exports for feature-extraction",
        ) from error
    _check_interface(model, architecture)
    _name_symbols(model)
    _complete_normalizations(model)
    _bypass_identities(model)
    _unshare_initializers(model)
    return model


def graph_inputs(model: ModelProto) -> tuple[TensorInput, ...]:
    """The inputs that the device's examples fill, in the graph's order."""
    return tuple(
        TensorInput(name=value.name, dtype="int64", shape=("batch", "tokens"))
        for value in model.graph.input
        if value.name in TOKEN_INPUTS
    )


def _check_interface(model: ModelProto, architecture: str) -> None:
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    unknown = sorted(set(inputs) - set(TOKEN_INPUTS))  # the SDK's tokenizer could not fill them
    if unknown or ATTENTION_MASK not in inputs or outputs[:1] != [HIDDEN]:
        raise ModelNotExportable(
            f"architecture {architecture!r} is no encoder that devices can feed",
            got=f"inputs {inputs}, outputs {outputs}",
            expected=f"inputs among {list(TOKEN_INPUTS)} with {ATTENTION_MASK}, output {HIDDEN}",
        )
    del model.graph.output[1:]


def _name_symbols(model: ModelProto) -> None:
    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in _SYMBOLS:
                dim.dim_param = _SYMBOLS[dim.dim_param]


def _complete_normalizations(model: ModelProto) -> None:
    # The gradient builder reads the two outputs that inference leaves out.
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            output = node.output[0]
            del node.output[1:]
            node.output.extend([f"{output}_mean", f"{output}_inverse_deviation"])


def _bypass_identities(model: ModelProto) -> None:
    # Of equal weights the exporter keeps one, and lets the others be copies of it.
    weights = {tensor.name for tensor in model.graph.initializer}
    copies = [node for node in model.graph.node if node.op_type == "Identity" and node.input[0] in weights]
    original = {node.output[0]: node.input[0] for node in copies}
    for node in copies:
        model.graph.node.remove(node)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = original.get(name, name)


def _unshare_initializers(model: ModelProto) -> None:
    # Two readers of one initializer make the gradient builder define its gradient twice. The copies cost
    # nothing: equal weights get one place in base.bin.
    by_name = {tensor.name: tensor for tensor in model.graph.initializer}
    uses: Counter[str] = Counter()
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name not in by_name:
                continue
            uses[name] += 1
            if uses[name] > 1:
                copy = model.graph.initializer.add()
                copy.CopyFrom(by_name[name])
                copy.name = f"{name}#{uses[name]}"
                node.input[position] = copy.name
