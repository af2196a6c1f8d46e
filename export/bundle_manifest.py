"""Describes a bundle: what a device must know of it before it fetches the rest."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

import hetlora
from export.compilation import Compiled
from export.source.model_folder import ModelFolder
from export.source.task_facts import TaskFacts
from export.source.tracing import OPSET
from export.training.training_graph import ADAMW
from hetlora.cost import CostModel
from hetlora.manifest import (
    SCHEMA_VERSION,
    BaseModelInfo,
    ClientFiles,
    ExecutorchFiles,
    GraphFiles,
    Manifest,
    Precision,
    PytorchFiles,
    ToolVersions,
)
from hetlora.messages.common import ObjectRef

TOKENIZER: Final = "tokenizer.json"
INITIAL_ADAPTER: Final = "adapter.safetensors"
GRADIENTS: Final = "gradients.onnx"
FILES: Final = GraphFiles(
    training="training.onnx",
    eval="eval.onnx",
    optimizer="optimizer.onnx",
    inference="inference.onnx",
    base_weights="base.bin",
    tokenizer=TOKENIZER,
)


def formats_of(base: Precision) -> tuple[int, int]:
    """The opset and IR version of the graphs: as old as they can be, for older runtimes on devices."""
    return (21, 10) if base == "int4" else (OPSET, 9)  # int4 is a type from opset 21 on


def describe(
    source: ModelFolder,
    compiled: Compiled,
    facts: TaskFacts,
    *,
    weights_sha256: str,
    cost: CostModel,
    executorch: ExecutorchFiles | None,
    pytorch: PytorchFiles | None,
    files: Mapping[str, ObjectRef],
) -> Manifest:
    """The manifest of what the model `source` was compiled to, and `files` hold."""
    recipe = compiled.recipe
    return Manifest(
        schema_version=SCHEMA_VERSION,
        task=recipe.task,
        labels=facts.labels,
        max_tokens=recipe.max_tokens,
        base_model=BaseModelInfo(
            id=source.name,
            revision=source.revision,
            sha256=weights_sha256,
            parameters=sum(parameter.numel() for parameter in compiled.network.parameters()),
        ),
        adapter=compiled.spec,
        base_precision=recipe.base,
        recompute=recipe.recompute,
        untrained=tuple(module.name for module in compiled.spec.modules if module not in compiled.trained),
        inputs=compiled.inputs,
        image=facts.image,
        generation=facts.generation,
        optimizer=ADAMW,
        graphs=FILES if TOKENIZER in files else FILES.model_copy(update={"tokenizer": None}),
        executorch=executorch,
        pytorch=pytorch,
        android=ClientFiles(gradients=GRADIENTS) if recipe.android else None,
        web=ClientFiles(gradients=GRADIENTS) if recipe.web else None,
        initial_adapter=INITIAL_ADAPTER if INITIAL_ADAPTER in files else None,
        cost_model=cost,
        versions=_tool_versions(recipe.base),
        files=dict(files),
    )


def _tool_versions(base: Precision) -> ToolVersions:
    opset, ir_version = formats_of(base)
    return ToolVersions(
        hetlora=hetlora.__version__,
        onnx=version("onnx"),
        onnxruntime=version("onnxruntime-training-cpu"),
        opset=opset,
        ir_version=ir_version,
    )
