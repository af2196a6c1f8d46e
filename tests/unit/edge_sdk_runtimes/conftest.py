from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxRuntime
from hetlora.adapter import Adapter, LoraFactors, initial_adapter
from hetlora.bundle import Bundle


@pytest.fixture
def batch() -> Batch:
    """Four texts of three to six tokens, padded to six."""
    rng = np.random.default_rng(1)
    attention_mask = (np.arange(6) < np.array([[6], [3], [5], [4]])).astype(np.int64)
    input_ids = rng.integers(4, 60, (4, 6)) * attention_mask
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "token_type_ids": np.zeros_like(input_ids),
        "labels": np.array([0, 2, 1, 2]),
    }


@pytest.fixture
def trained_adapter(tiny_bundle: Bundle) -> Callable[[int], Adapter]:
    """Makes an adapter of a rank with both factors away from zero, as after some training."""

    def make(rank: int) -> Adapter:
        rng = np.random.default_rng(2)
        spec = tiny_bundle.manifest.adapter
        factors = {
            module.name: LoraFactors(factors.lora_A, 0.1 * rng.standard_normal(factors.lora_B.shape))
            for module, factors in initial_adapter(spec, rank, rng)
        }
        return Adapter(spec, factors)

    return make


@pytest.fixture
def open_runtime(tiny_bundle: Bundle) -> Callable[[Adapter], OnnxRuntime]:
    """Opens the tiny bundle for training around an adapter."""
    return lambda adapter: OnnxRuntime(
        tiny_bundle, adapter, pruning_decay=0.99, pruning_penalty=1e-3, threads=1
    )


@pytest.fixture(scope="session")
def family_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Bundle]]:
    """Gives model folder and bundle of a tiny family by its name in `tiny_families`, each made once."""
    from tiny_families import TINY_FAMILIES, write_tiny_family

    from export.bundle_writer import export_bundle

    @cache
    def exported(name: str) -> tuple[Path, Bundle]:
        root = tmp_path_factory.mktemp(name)
        model = write_tiny_family(root / "model", name)
        task = TINY_FAMILIES[name].task
        choices = {"targets": ["all-linear"], "max_rank": 4, "max_tokens": 16}
        return model, export_bundle(str(model), root / "bundle", task=task, **choices)

    return exported
