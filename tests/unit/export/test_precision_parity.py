"""Frozen weights in fewer bits: a step is that of PyTorch on the decoded ones, and they stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
from parity import batch_for, check_first_step, export_family, open_trainer, trained_adapter
from peft_twin import PeftTwin
from safetensors.numpy import load_file, save_file
from tiny_families import write_tiny_family

from export.weights.precision import BLOCK_SIZE
from hetlora.bundle import Bundle
from hetlora.errors import ModelNotExportable
from hetlora.manifest import Precision

FAMILIES = ("llama", "smollm", "gpt2", "bert", "t5")


def rounded(weight: NDArray[np.float32], precision: Precision, *, is_table: bool) -> NDArray[np.float32]:
    """What a weight becomes, written down from the formats and not from the exporter."""
    if weight.ndim != 2:
        return weight
    if precision == "float16":
        return weight.astype(np.float16).astype(np.float32)
    if precision == "bfloat16":
        import torch

        return torch.from_numpy(weight).bfloat16().float().numpy()
    if precision == "int4" and not is_table:
        blocks = weight.reshape(-1, BLOCK_SIZE)
        step = np.abs(blocks).max(axis=1, keepdims=True) / 7
        return (np.rint(blocks / step) * step).astype(np.float32).reshape(weight.shape)
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    return (np.rint(weight / step) * step).astype(np.float32)


def _round_model(model: Path, precision: Precision) -> None:
    weights = load_file(model / "model.safetensors")
    tables = ("embed_tokens", "shared", "wte", "wpe", "_embeddings", "lm_head", "relative_attention_bias")
    save_file(
        {
            name: rounded(weight, precision, is_table=any(table in name for table in tables))
            for name, weight in weights.items()
        },
        model / "model.safetensors",
        {"format": "pt"},
    )


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("name", FAMILIES)
def test_step_equals_torch_on_the_decoded_weights(name: str, precision: Precision, tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", name)
    bundle = export_family(name, model, tmp_path / "bundle", base=precision)
    _round_model(model, precision)
    adapter = trained_adapter(bundle.manifest.adapter)
    twin = PeftTwin(bundle, model, adapter, tmp_path / "peft")
    check_first_step(open_trainer(bundle, adapter), batch_for(bundle), twin)


@pytest.mark.parametrize(("precision", "share"), [("bfloat16", 0.5), ("int8", 0.28), ("int4", 0.2)])
def test_weights_take_the_room_that_their_precision_promises(
    precision: Precision, share: float, tmp_path: Path
) -> None:
    model = write_tiny_family(tmp_path / "model", "llama")

    def matrix_bytes(bundle: Bundle) -> int:
        graph = onnx.load(bundle.path(bundle.manifest.graphs.training), load_external_data=False).graph
        return sum(
            int(next(entry.value for entry in tensor.external_data if entry.key == "length"))
            for tensor in graph.initializer
            if tensor.external_data and "proj" in tensor.name
        )

    whole = matrix_bytes(export_family("llama", model, tmp_path / "whole"))
    small = matrix_bytes(export_family("llama", model, tmp_path / "small", base=precision))
    # A float32 scale for each row of 32 or more numbers, or each block of 32.
    assert small <= share * whole + 4 * whole / 4 / BLOCK_SIZE


def test_quantised_weights_are_not_decoded_when_a_session_opens(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "llama")
    bundle = export_family("llama", model, tmp_path / "bundle", base="int8")
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "bundle" / "optimized.onnx")
    options.log_severity_level = 3
    InferenceSession(
        bundle.path(bundle.manifest.graphs.inference),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["ConstantFolding"],
    )
    graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    decoders = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    assert len(decoders) == 2 * 7 + 1  # seven matrices in each of two layers, and the output head


def test_without_a_barrier_decoders_stand_before_all_that_runs(tmp_path: Path) -> None:
    # ONNX Runtime then runs each just before its reader; beside it one would run before the first layer.
    model = write_tiny_family(tmp_path / "model", "llama")
    bundle = export_family("llama", model, tmp_path / "bundle", base="int8")
    for name in (bundle.manifest.graphs.inference, bundle.manifest.graphs.eval):
        kinds = [node.op_type for node in onnx.load(bundle.path(name), load_external_data=False).graph.node]
        decoders = kinds.count("DequantizeLinear")
        assert decoders >= 2 * 7 + 1
        assert kinds[:decoders] == ["DequantizeLinear"] * decoders


def test_numbers_beyond_float16_are_refused_by_name(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "llama")
    name = "model.layers.0.mlp.up_proj.weight"
    weights = load_file(model / "model.safetensors")
    weights[name][1, 2] = 1e5
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelNotExportable, match=rf"weight {name} does not fit .* got 100000 in float16"):
        export_family("llama", model, tmp_path / "bundle", base="float16")
