from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from hetlora.cost import StepCost

settings.register_profile("grammar", deadline=None, max_examples=60)
settings.load_profile("grammar")

GRAPHS = ("training", "eval", "optimizer", "inference", "base_weights", "tokenizer")
NO_COST = dict.fromkeys(StepCost.model_fields, 0)


@pytest.fixture
def manifest_fields() -> dict[str, Any]:
    """A manifest that the schema accepts; each file `x.bin` holds the bytes of its own name."""
    return {
        "schema_version": 1,
        "task": "text-classification",
        "labels": ["text", "number"],
        "max_tokens": 64,
        "base_model": {"id": "tiny", "revision": None, "sha256": "0" * 64, "parameters": 10},
        "adapter": {
            "modules": [{"name": "q", "in_features": 3, "out_features": 2}],
            "scaling": 2.0,
            "max_rank": 2,
        },
        "base_precision": "float32",
        "recompute": "none",
        "fixed_rank": None,
        "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "tokens"]}],
        "image": None,
        "generation": None,
        "optimizer": {"name": "AdamW", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0},
        "graphs": {graph: f"graphs/{graph}.bin" for graph in GRAPHS},
        "executorch": None,
        "initial_adapter": None,
        "cost_model": {
            "flops": {**NO_COST, "per_token": 100, "per_token_per_rank": 10},
            "written_bytes": {**NO_COST, "per_token": 60},
            "live_bytes": [{**NO_COST, "per_token": 50, "per_token_per_rank": 5}],
            "most_chunk_rows": 0,
            "graph_nodes": 7,
            "base_weight_bytes": 40,
            "adapter_bytes_per_rank": 20,
        },
        "versions": {
            "hetlora": "0.1.0",
            "onnx": "1.17.0",
            "onnxruntime": "1.19.2",
            "opset": 17,
            "ir_version": 9,
        },
        "files": {
            f"graphs/{graph}.bin": {
                "sha256": hashlib.sha256(graph.encode()).hexdigest(),
                "size_bytes": len(graph),
            }
            for graph in GRAPHS
        },
    }


@pytest.fixture
def bundle_folder(tmp_path: Path, manifest_fields: dict[str, Any]) -> Path:
    """A whole bundle on disk."""
    folder = tmp_path / "bundle"
    (folder / "graphs").mkdir(parents=True)
    for graph in GRAPHS:
        (folder / "graphs" / f"{graph}.bin").write_bytes(graph.encode())
    (folder / "manifest.json").write_text(json.dumps(manifest_fields))
    return folder
