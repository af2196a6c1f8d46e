"""Bundles that feed all factors and train those of the last layers: variants of the same adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from parity import batch_for, export_family, trained_adapter
from tiny_families import write_tiny_family
from trainers import trainer_of

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxRuntime
from export.stamping import stamp
from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle
from hetlora.manifest import Recompute
from hetlora.tensors import factor_keys, to_tensors
from hetlora.variants import check_variant


def gradients_of(bundle: Bundle, adapter: Adapter, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    ranks = {name: own.rank for name, own in adapter.factors.items()}
    return OnnxRuntime(bundle, ranks, threads=1).gradients(batch, to_tensors(adapter))


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "vit", "t5"])
def test_gradients_of_the_last_layers_are_those_of_the_whole_bundle_and_others_are_zero(
    name: str, tmp_path: Path
) -> None:
    model = write_tiny_family(tmp_path / "model", name)
    whole = export_family(name, model, tmp_path / "whole")
    last = export_family(name, model, tmp_path / "last", trained_layers=1)
    check_variant(whole.manifest, last.manifest)
    untrained = {key for module in last.manifest.untrained for key in factor_keys(module)}
    assert 0 < len(last.manifest.untrained) < len(whole.manifest.adapter.modules)
    adapter, batch = trained_adapter(whole.manifest.adapter), batch_for(whole)
    (loss, gradients), (last_loss, last_gradients) = (
        gradients_of(bundle, adapter, batch) for bundle in (whole, last)
    )
    assert last_loss == pytest.approx(loss, abs=1e-6)
    assert gradients.keys() == last_gradients.keys()
    for key, gradient in gradients.items():
        if key in untrained:
            assert not last_gradients[key].any()
            assert last_gradients[key].shape == gradient.shape
        else:
            assert np.abs(gradient - last_gradients[key]).max() <= 1e-6 * np.abs(gradient).max() + 1e-9, key


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_leaves_the_factors_of_other_layers_bit_for_bit_under_a_penalty_and_a_proximal_term(
    optimizer: str, tmp_path: Path
) -> None:
    model = write_tiny_family(tmp_path / "model", "bert")
    bundle = export_family("bert", model, tmp_path / "last", trained_layers=1)
    adapter = trained_adapter(bundle.manifest.adapter)
    settings = {"optimizer": optimizer, "pruning_decay": 0.5, "pruning_penalty": 0.1, "proximal": 0.1}
    trainer = trainer_of(bundle, adapter, learning_rate=0.1, **settings)
    for _ in range(3):
        trainer.step(batch_for(bundle))
    before, after = to_tensors(adapter), to_tensors(trainer.adapter())
    for module in bundle.manifest.adapter.modules:
        is_same = [bool((before[key] == after[key]).all()) for key in factor_keys(module.name)]
        is_empty = adapter.factors[module.name].rank == 0
        assert all(is_same) == (module.name in bundle.manifest.untrained or is_empty), module.name


@pytest.mark.parametrize("recompute", ["none", "selective", "layer"])
def test_fewer_trained_layers_of_one_adapter_take_less_time_and_memory(
    recompute: Recompute, tmp_path: Path
) -> None:
    model = write_tiny_family(tmp_path / "model", "llama")
    whole, last = (
        export_family("llama", model, tmp_path / name, trained_layers=layers, recompute=recompute)
        for name, layers in (("whole", None), ("last", 1))
    )
    step = whole.manifest.cost_model.step(batch=2, tokens=24, rank=4)
    costs = [bundle.manifest.cost_model for bundle in (whole, last)]
    assert costs[1].flops.at(step) < costs[0].flops.at(step)
    assert costs[1].peak_live_bytes(step) < costs[0].peak_live_bytes(step)


def test_stamped_bundle_trains_its_last_layers(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "bert")
    last = export_family("bert", model, tmp_path / "last", trained_layers=1)
    stamped = stamp(last, tmp_path / "stamped", rank=4, batch=3, tokens=11)
    assert stamped.manifest.untrained == last.manifest.untrained
    adapter, batch = trained_adapter(last.manifest.adapter, ranks=(4,)), batch_for(last)
    (loss, gradients), (own_loss, own_gradients) = (
        gradients_of(bundle, adapter, batch) for bundle in (last, stamped)
    )
    assert own_loss == pytest.approx(loss, abs=1e-6)
    for key, gradient in gradients.items():
        assert own_gradients[key] == pytest.approx(gradient, abs=1e-6)
