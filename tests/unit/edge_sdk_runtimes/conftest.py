from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edge_sdk.runtimes.base import Batch
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, initial_adapter
from hetlora.bundle import Bundle


class _Absent(importlib.abc.MetaPathFinder):
    """As if these packages were not installed."""

    def __init__(self, *packages: str) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self._packages:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return None


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def hide(*packages: str) -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in packages:
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [_Absent(*packages), *sys.meta_path])

    return hide


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
    """Makes an adapter of a rank for the tiny bundle, both factors away from zero."""
    from parity import trained_adapter

    return lambda rank: trained_adapter(tiny_bundle.manifest.adapter, (rank,))


@pytest.fixture
def telling_adapter() -> Callable[[AdapterSpec, int], Adapter]:
    """Makes an adapter from a seed, far enough from zero to change which token is the most likely one."""

    def make(spec: AdapterSpec, seed: int) -> Adapter:
        rng = np.random.default_rng(seed)
        return Adapter(
            spec,
            {
                module.name: LoraFactors(factors.lora_A, rng.standard_normal(factors.lora_B.shape))
                for module, factors in initial_adapter(spec, 4, rng)
            },
        )

    return make


@pytest.fixture
def open_tiny(tiny_bundle: Bundle) -> Callable[[Adapter], Trainer]:
    """Opens the tiny bundle for training around an adapter, over ONNX Runtime."""
    from trainers import trainer_of

    return lambda adapter: trainer_of(
        tiny_bundle, adapter, pruning_decay=0.99, pruning_penalty=1e-3, learning_rate=1e-2
    )


@pytest.fixture(scope="session")
def family_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Bundle]]:
    """Gives model folder and bundle of a tiny family by its name in `tiny_families`, each made once a run."""
    from parity import export_family
    from tiny_families import write_tiny_family

    @cache
    def exported(name: str) -> tuple[Path, Bundle]:
        root = tmp_path_factory.mktemp(name)
        model = write_tiny_family(root / "model", name)
        return model, export_family(name, model, root / "bundle", targets=["all-linear"])

    return exported
