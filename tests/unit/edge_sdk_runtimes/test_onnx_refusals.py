"""What ONNX Runtime is not asked to do, or cannot: adapters, batches and graphs that are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from trainers import trainer_of

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx_library import memory_for_adapter
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, AdapterSpec, initial_adapter
from hetlora.algebra import truncate
from hetlora.bundle import Bundle
from hetlora.errors import (
    BundleInvalid,
    DataError,
    DependencyMissing,
    RankOutOfRange,
    SettingsError,
    SpecMismatch,
)

MakeAdapter = Callable[[int], Adapter]
OpenTiny = Callable[[Adapter], Trainer]


def test_rank_zero_is_refused(trained_adapter: MakeAdapter, open_tiny: OpenTiny) -> None:
    with pytest.raises(RankOutOfRange, match="at rank 0"):
        open_tiny(truncate(trained_adapter(1), 0))


def test_adapter_of_another_bundle_is_refused(tiny_bundle: Bundle, open_tiny: OpenTiny) -> None:
    spec = tiny_bundle.manifest.adapter
    other = AdapterSpec(spec.modules, spec.scaling + 1, spec.max_rank)
    with pytest.raises(SpecMismatch):
        open_tiny(initial_adapter(other, 2, np.random.default_rng(0)))


BAD_BATCHES = [
    pytest.param({"labels": np.array([0, 1, 2, 3])}, id="label outside the classes"),
    pytest.param({"labels": np.array([0, 1, 2, -1])}, id="negative label"),
    pytest.param({"labels": np.array([0, 1])}, id="fewer labels than texts"),
    pytest.param({"labels": np.array([0.0, 1.0, 2.0, 2.0])}, id="labels that are no whole numbers"),
    pytest.param({"input_ids": np.full((4, 6), 10**6)}, id="token outside the vocabulary"),
    pytest.param({"input_ids": np.full((4, 6), -1)}, id="token that would count from the vocabulary's end"),
    pytest.param({"input_ids": np.full((4, 6), 2**64 - 1, np.uint64)}, id="token that would become -1"),
    pytest.param({"input_ids": [[1, 2], [3]]}, id="lists of unlike length"),
    pytest.param(
        {name: np.ones((4, 33), dtype=np.int64) for name in ("input_ids", "attention_mask")}
        | {"token_type_ids": np.zeros((4, 33), dtype=np.int64)},
        id="more tokens than max_tokens",
    ),
    pytest.param({"input_ids": np.ones((4, 5), dtype=np.int64)}, id="shapes that differ"),
    pytest.param({"token_type_ids": np.full((4, 6), 2)}, id="unknown token type"),
    pytest.param(
        {name: np.ones((4, 65), dtype=np.int64) for name in ("input_ids", "attention_mask")}
        | {"token_type_ids": np.zeros((4, 65), dtype=np.int64)},
        id="more tokens than positions",
    ),
    pytest.param(
        {name: np.ones((0, 6), dtype=np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        | {"labels": np.ones(0, dtype=np.int64)},
        id="no text at all",
    ),
]


@pytest.mark.parametrize("fault", BAD_BATCHES)
def test_faulty_batch_is_refused_and_training_goes_on_as_if_it_had_not_been(
    fault: Batch, trained_adapter: MakeAdapter, open_tiny: OpenTiny, batch: Batch
) -> None:
    trainer, untouched = open_tiny(trained_adapter(2)), open_tiny(trained_adapter(2))
    with pytest.raises(DataError):
        trainer.step({**batch, **fault})
    with pytest.raises(DataError):
        trainer.evaluate({**batch, **fault})
    for _ in range(2):
        assert trainer.step(batch) == untouched.step(batch)


def test_numbers_that_mean_nothing_are_refused(tiny_bundle: Bundle, trained_adapter: MakeAdapter) -> None:
    with pytest.raises(SettingsError, match="threads; got 0"):
        trainer_of(tiny_bundle, trained_adapter(2), threads=0)
    with pytest.raises(SettingsError, match="rows of a micro-batch; got 0"):
        trainer_of(tiny_bundle, trained_adapter(2), micro_batch=0)


def test_missing_input_is_named(trained_adapter: MakeAdapter, open_tiny: OpenTiny, batch: Batch) -> None:
    trainer = open_tiny(trained_adapter(2))
    with pytest.raises(DataError, match="expected token_type_ids"):
        trainer.step({name: array for name, array in batch.items() if name != "token_type_ids"})


def test_graph_that_is_no_graph_is_refused(
    tiny_bundle: Bundle, trained_adapter: MakeAdapter, tmp_path: Path
) -> None:
    graphs = tiny_bundle.manifest.graphs
    (tmp_path / graphs.training).write_bytes(b"no graph")
    broken = Bundle(tmp_path, tiny_bundle.manifest, tiny_bundle.digest)
    with pytest.raises(BundleInvalid, match=r"training\.onnx cannot be loaded"):
        trainer_of(broken, trained_adapter(2))


def test_missing_wheel_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, trained_adapter: MakeAdapter, open_tiny: OpenTiny
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what the import system takes for: not installed
    with pytest.raises(DependencyMissing, match="pip install onnxruntime-training-cpu"):
        open_tiny(trained_adapter(2))


def test_lack_of_memory_for_the_adapter_is_told_as_such() -> None:
    with pytest.raises(MemoryError, match="no memory for the adapter"), memory_for_adapter():
        raise RuntimeError("Failed to allocate memory for requested buffer of size 4096")
    with pytest.raises(RuntimeError, match="another"), memory_for_adapter():
        raise RuntimeError("another fault")
