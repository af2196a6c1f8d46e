"""A bundle whose files nobody reads, for devices that do not train: all but its adapters is a few bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.bundle import Bundle, open_bundle
from hetlora.cost import CostModel, StepCost
from hetlora.digest import sha256_of
from hetlora.manifest import (
    MANIFEST_NAME,
    BaseModelInfo,
    GraphFiles,
    Manifest,
    OptimizerInfo,
    TensorInput,
    ToolVersions,
)
from hetlora.messages.common import ObjectRef

MODULES: Final = 4
FILES: Final = (
    "training.onnx",
    "eval.onnx",
    "optimizer.onnx",
    "inference.onnx",
    "base.bin",
    "tokenizer.json",
)


def tiny_spec(features: int, max_rank: int) -> AdapterSpec:
    """Four square layers: 32 x `features` bytes of adapter for each rank."""
    modules = tuple(ModuleSpec(f"layer.{number}", features, features) for number in range(MODULES))
    return AdapterSpec(modules, scaling=1.0, max_rank=max_rank)


def write_tiny_bundle(folder: Path, spec: AdapterSpec) -> Bundle:
    """Write the bundle of a specification into a new folder."""
    folder.mkdir(parents=True)
    files = {}
    for name in FILES:
        data = f"bytes of {name}".encode()
        (folder / name).write_bytes(data)
        files[name] = ObjectRef(sha256=sha256_of(data), size_bytes=len(data))
    (folder / MANIFEST_NAME).write_bytes(_manifest(spec, files).to_json())
    return open_bundle(folder)


def _manifest(spec: AdapterSpec, files: dict[str, ObjectRef]) -> Manifest:
    training, evaluation, optimizer, inference, base, tokenizer = FILES
    one = StepCost(per_token=1)
    return Manifest(
        schema_version=1,
        task="text-classification",
        labels=("no", "yes"),
        max_tokens=64,
        base_model=BaseModelInfo(id="tiny", revision=None, sha256="0" * 64, parameters=12),
        adapter=spec,
        inputs=(TensorInput(name="input_ids", dtype="int64", shape=("batch", "tokens")),),
        optimizer=OptimizerInfo(name="AdamW", beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0),
        graphs=GraphFiles(
            training=training,
            eval=evaluation,
            optimizer=optimizer,
            inference=inference,
            base_weights=base,
            tokenizer=tokenizer,
        ),
        cost_model=CostModel(
            flops=one,
            written_bytes=one,
            live_bytes=(one,),
            most_chunk_rows=0,
            graph_nodes=1,
            base_weight_bytes=files[base].size_bytes,
            adapter_bytes_per_rank=4 * spec.parameters_per_rank,
        ),
        versions=ToolVersions(hetlora="0.1.0", onnx="1.17.0", onnxruntime="1.19.2", opset=17, ir_version=9),
        files=files,
    )
