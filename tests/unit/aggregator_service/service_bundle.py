"""A bundle of a few bytes, and adapters for it."""

from __future__ import annotations

import numpy as np

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.cost import CostModel, StepCost
from hetlora.digest import sha256_of
from hetlora.manifest import BaseModelInfo, GraphFiles, Manifest, OptimizerInfo, TensorInput, ToolVersions
from hetlora.messages.common import ObjectRef

# Two modules, 2 x 3 and 3 x 2: widths that no test can mix up.
SPEC = AdapterSpec((ModuleSpec("key", 3, 2), ModuleSpec("query", 2, 3)), scaling=2.0, max_rank=2)
FILES = {
    name: f"bytes of {name}".encode()
    for name in (
        "training.onnx",
        "eval.onnx",
        "optimizer.onnx",
        "inference.onnx",
        "base.bin",
        "tokenizer.json",
    )
}


def make_manifest(spec: AdapterSpec = SPEC) -> Manifest:
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
            training="training.onnx",
            eval="eval.onnx",
            optimizer="optimizer.onnx",
            inference="inference.onnx",
            base_weights="base.bin",
            tokenizer="tokenizer.json",
        ),
        cost_model=CostModel(
            flops=StepCost(per_token=1),
            written_bytes=StepCost(per_token=1),
            live_bytes=(StepCost(per_token=1),),
            most_chunk_rows=0,
            graph_nodes=1,
            base_weight_bytes=13,
            adapter_bytes_per_rank=40,
        ),
        versions=ToolVersions(hetlora="0.1.0", onnx="1.17.0", onnxruntime="1.19.2", opset=17, ir_version=9),
        files={name: ObjectRef(sha256=sha256_of(data), size_bytes=len(data)) for name, data in FILES.items()},
    )


def make_adapter(rank: int, scale: float = 1.0, spec: AdapterSpec = SPEC) -> Adapter:
    """All ones times `scale` in every factor."""
    return Adapter(
        spec,
        {
            module.name: LoraFactors(
                np.full((rank, module.in_features), scale, dtype=np.float32),
                np.full((module.out_features, rank), scale, dtype=np.float32),
            )
            for module in spec.modules
        },
    )


def random_adapter(rank: int, seed: int, spec: AdapterSpec = SPEC) -> Adapter:
    rng = np.random.default_rng(seed)
    return Adapter(
        spec,
        {
            module.name: LoraFactors(
                rng.standard_normal((rank, module.in_features)).astype(np.float32),
                rng.standard_normal((module.out_features, rank)).astype(np.float32),
            )
            for module in spec.modules
        },
    )
