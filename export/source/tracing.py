"""Traces a Hugging Face model into a plain ONNX graph that holds no weights."""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import onnx
import optimum.exporters.onnx.model_configs  # type: ignore[import-untyped]  # noqa: F401  # registers them
import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from onnx import ModelProto
from optimum.exporters.tasks import TasksManager  # type: ignore[import-untyped]
from torch import Tensor
from torch.onnx.errors import UnsupportedOperatorError
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from export.quiet import first_line, quiet_native_code
from export.source.weightless import UnreadMatrices, put_weights, weights_taken_out
from hetlora.errors import ModelNotExportable
from hetlora.graph_names import DECODER_INPUT_IDS, LOGITS, PIXEL_VALUES, POSITION_IDS, TOKEN_INPUTS

OPSET: Final = 18
FEATURES: Final = "last_hidden_state"


@dataclass(frozen=True, slots=True)
class _TracedTask:
    """Which Auto class loads the model, what Optimum calls the task, and which output counts."""

    auto_class: Any
    optimum_task: str
    output: str


_TASKS: Final = {
    "text-classification": _TracedTask(modeling_auto.AutoModel, "feature-extraction", FEATURES),
    "text-generation": _TracedTask(modeling_auto.AutoModelForCausalLM, "text-generation", LOGITS),
    "image-classification": _TracedTask(
        modeling_auto.AutoModelForImageClassification, "image-classification", LOGITS
    ),
    "text2text-generation": _TracedTask(modeling_auto.AutoModelForSeq2SeqLM, "text2text-generation", LOGITS),
}


def auto_class(task: str) -> Any:
    """The transformers class that loads a model for a task."""
    return _TASKS[task].auto_class


def weightless_model(config: PretrainedConfig, task: str) -> PreTrainedModel:
    """The model of a configuration, its buffers computed and its parameters without storage.

    Raises:
        ModelNotExportable: transformers has no model of this architecture for the task, or one with a decoder
            where an encoder is wanted.
    """
    if task == "text-classification" and config.is_encoder_decoder:
        raise ModelNotExportable(
            "text-classification takes the hidden states of an encoder alone",
            got=f"{config.model_type}, which has a decoder too",
            expected="an encoder, or the task text2text-generation",
        )
    config = copy.deepcopy(config)
    config.use_cache = False  # no past keys and values among the inputs and outputs
    try:
        with init_empty_weights(include_buffers=False):
            model = _TASKS[task].auto_class.from_config(
                config,
                attn_implementation="eager",  # the plainest graph: no sqrt on both sides of the scores
                dtype=torch.float32,
            )
    # The models' constructors raise whatever a configuration that does not add up leads to.
    except Exception as error:
        raise _unknown_architecture(config, task, error) from error
    model.tie_weights()  # making them empty cut the ties
    ready: PreTrainedModel = model.eval()
    return ready


def trace(model: PreTrainedModel, task: str) -> ModelProto:
    """The forward graph: weights are inputs under their state_dict names, as the checkpoint has them.

    Values of weights are never read. Other inputs are int64 (batch, tokens) or (batch, target_tokens) for
    text, and float32 (batch, channels, height, width) for images. The one output is FEATURES (batch, tokens,
    hidden) for text-classification and LOGITS otherwise. Positions are counted in the graph: texts are
    padded on the right.

    Raises:
        ModelNotExportable: an architecture that Optimum does not know for the task, or one that cannot be
            traced; the message names the operator and the module.
    """
    try:
        make_config = TasksManager.get_exporter_config_constructor(
            "onnx",
            model_type=model.config.model_type,
            task=_TASKS[task].optimum_task,
            library_name="transformers",
        )
        config = make_config(model.config)
    except Exception as error:  # Optimum raises KeyError, ValueError and more
        raise _unknown_architecture(model.config, task, error) from error
    try:
        return _export(model, config, _TASKS[task].output)
    except (ModelNotExportable, OSError):  # such as a full disk
        raise
    # torch.onnx and the models raise errors of many kinds for what cannot be traced.
    except Exception as error:
        raise _untraceable(error, model) from error


def _export(model: PreTrainedModel, config: Any, output: str) -> ModelProto:
    arguments = {"logits_to_keep": 0} if "logits_to_keep" in _parameters(model) else {}
    with torch.no_grad(), config.patch_model_for_export(model, model_kwargs=arguments):
        dummies = config.generate_dummy_inputs(framework="pt")
        names = [name for name in config.ordered_inputs(model) if name in dummies and name != POSITION_IDS]
        _check_interface(model, names, output, config.outputs)
        with _weights_as_arguments(model, names) as weights, quiet_native_code():
            # Where it fails, the exporter writes its graph to stdout if it is not told otherwise.
            torch._C._jit_set_onnx_log_output_stream("stderr")
            with TemporaryDirectory(prefix="hetlora-") as folder:
                path = Path(folder) / "model.onnx"
                torch.onnx.export(
                    model,
                    (*(dummies[name] for name in names), *weights.values()),
                    f=str(path),
                    input_names=[*names, *weights],
                    output_names=[output],
                    dynamic_axes={name: _symbols(name) for name in (*names, output)},
                    opset_version=OPSET,
                    dynamo=False,
                    export_params=False,
                    do_constant_folding=False,
                )
                return onnx.load(path)


@contextmanager
def _weights_as_arguments(model: PreTrainedModel, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """For a while the model's forward pass takes `names` and then its weights, of which stand-ins are given.

    As parameters of the model the exporter would copy them whole, again and again, to infer shapes.
    """
    forward = model.forward
    with weights_taken_out(model) as (places, weights):

        def forward_with(*tensors: Tensor) -> Any:
            put_weights(places, dict(zip(weights, tensors[len(names) :], strict=True)))
            with UnreadMatrices():
                return forward(**dict(zip(names, tensors, strict=False)))

        model.forward = forward_with
        try:
            yield weights
        finally:
            model.forward = forward


def _check_interface(model: PreTrainedModel, names: list[str], output: str, outputs: dict[str, Any]) -> None:
    known = {*TOKEN_INPUTS, DECODER_INPUT_IDS, PIXEL_VALUES}  # neither tokenizer nor image fills others
    if set(names) <= known and next(iter(outputs)) == output:
        return
    raise ModelNotExportable(
        f"architecture {model.config.model_type!r} has inputs or outputs that devices cannot use",
        got=f"inputs {names}, outputs {list(outputs)[:3]}",
        expected=f"inputs among {sorted(known)}, first output {output}",
    )


def _symbols(name: str) -> dict[int, str]:
    if name == PIXEL_VALUES:
        return {0: "batch"}
    return {0: "batch", 1: "target_tokens" if name == DECODER_INPUT_IDS else "tokens"}


def _parameters(model: PreTrainedModel) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def _unknown_architecture(config: PretrainedConfig, task: str, error: Exception) -> ModelNotExportable:
    return ModelNotExportable(
        f"architecture {config.model_type!r} is not known for {task}",
        got=first_line(error),
        expected="one that `hetlora export --list-models` names, or another that Optimum exports for it",
    )


def _untraceable(error: Exception, model: PreTrainedModel) -> ModelNotExportable:
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    nodes = [node for scope in frames if isinstance(node := scope.get("node"), torch._C.Node)]
    if nodes:  # the exporter had the graph already, and stopped at one of its nodes
        what = f"operator {nodes[-1].kind()} of module {_module_of(nodes[-1]) or 'unknown'}"
        missing = isinstance(error, UnsupportedOperatorError)
        what += f" has no form in ONNX opset {OPSET}" if missing else " cannot be written to ONNX"
    else:
        names = {id(module): name for name, module in model.named_modules()}
        running = (names.get(id(scope.get("self"))) for scope in reversed(frames))
        what = f"module {next((name for name in running if name), type(model).__name__)} cannot be traced"
    return ModelNotExportable(
        what,
        got=first_line(error),
        expected="a model of operators that ONNX has",
    )


def _module_of(node: torch._C.Node) -> str:
    """The module path in a scope name: package.Bert::/package.Encoder::encoder/package.Layer::layer.1."""
    return ".".join(part.rpartition("::")[2] for part in node.scopeName().split("/")).strip(".")
