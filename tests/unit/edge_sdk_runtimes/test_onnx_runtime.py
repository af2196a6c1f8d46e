from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.runtimes.base import Batch, TrainingRuntime
from edge_sdk.runtimes.onnx import OnnxRuntime
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, initial_adapter
from hetlora.algebra import truncate
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, DataError, DependencyMissing, RankOutOfRange, SpecMismatch
from hetlora.tensors import factor_keys

MakeAdapter = Callable[[int], Adapter]

LEARNING_RATE = 1e-2


@pytest.fixture
def open_runtime(tiny_bundle: Bundle) -> Callable[[Adapter], OnnxRuntime]:
    return lambda adapter: OnnxRuntime(
        tiny_bundle, adapter, pruning_decay=0.99, pruning_penalty=1e-3, threads=1
    )


OpenRuntime = Callable[[Adapter], OnnxRuntime]


@pytest.mark.parametrize("rank", [1, 2, 8])
def test_loss_falls_at_every_rank_of_one_bundle(
    rank: int, tiny_bundle: Bundle, open_runtime: OpenRuntime, batch: Batch
) -> None:
    new = initial_adapter(tiny_bundle.manifest.adapter, rank, np.random.default_rng(0))
    runtime: TrainingRuntime = open_runtime(new)
    losses = [runtime.train_step(batch, learning_rate=LEARNING_RATE) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]
    assert runtime.adapter().ranks == new.ranks


def test_new_runtime_holds_the_adapter_as_given(
    trained_adapter: MakeAdapter, open_runtime: OpenRuntime
) -> None:
    given = trained_adapter(3)
    held = open_runtime(given).adapter()
    for module, factors in held:
        assert (factors.lora_A == given.factors[module.name].lora_A).all()
        assert (factors.lora_B == given.factors[module.name].lora_B).all()


def test_adapter_is_a_copy_that_training_leaves_alone(
    trained_adapter: MakeAdapter, open_runtime: OpenRuntime, batch: Batch
) -> None:
    runtime = open_runtime(trained_adapter(3))
    before = runtime.adapter()
    runtime.train_step(batch, learning_rate=LEARNING_RATE)
    after = runtime.adapter()
    for module, factors in before:
        assert (factors.lora_A == trained_adapter(3).factors[module.name].lora_A).all()
        assert (factors.lora_A != after.factors[module.name].lora_A).any()


def test_same_start_and_batches_give_the_same_adapter(
    trained_adapter: MakeAdapter, open_runtime: OpenRuntime, batch: Batch
) -> None:
    def train() -> Adapter:
        runtime = open_runtime(trained_adapter(4))
        for _ in range(3):
            runtime.train_step(batch, learning_rate=LEARNING_RATE)
        return runtime.adapter()

    first, second = train(), train()
    assert all((factors.lora_B == second.factors[module.name].lora_B).all() for module, factors in first)


def test_loss_of_the_first_step_is_that_of_the_evaluation_without_penalty(
    tiny_bundle: Bundle, trained_adapter: MakeAdapter, batch: Batch
) -> None:
    runtime = OnnxRuntime(tiny_bundle, trained_adapter(4), pruning_decay=0.5, pruning_penalty=0.0)
    evaluation = runtime.evaluate(batch)
    assert evaluation.logits.shape == (4, 3)
    assert runtime.train_step(batch, learning_rate=LEARNING_RATE) == pytest.approx(evaluation.loss, abs=1e-6)


def test_evaluation_sees_what_training_changed(
    trained_adapter: MakeAdapter, open_runtime: OpenRuntime, batch: Batch
) -> None:
    runtime = open_runtime(trained_adapter(4))
    before = runtime.evaluate(batch)
    for _ in range(5):
        runtime.train_step(batch, learning_rate=LEARNING_RATE)
    assert runtime.evaluate(batch).loss < before.loss


def test_padding_does_not_change_the_loss(
    trained_adapter: MakeAdapter, open_runtime: OpenRuntime, batch: Batch
) -> None:
    longer = {name: np.pad(array, ((0, 0), (0, 3))) for name, array in batch.items() if name != "labels"}
    runtime = open_runtime(trained_adapter(2))
    padded = runtime.evaluate({**longer, "labels": batch["labels"]})
    assert padded.loss == pytest.approx(runtime.evaluate(batch).loss, abs=1e-5)


def test_module_of_rank_zero_stays_untrained_among_others(
    trained_adapter: MakeAdapter, open_runtime: OpenRuntime, batch: Batch
) -> None:
    adapter = trained_adapter(4)
    first = adapter.spec.modules[0].name
    runtime = open_runtime(
        Adapter(adapter.spec, {**adapter.factors, first: truncate(adapter, 0).factors[first]})
    )
    for _ in range(3):
        runtime.train_step(batch, learning_rate=LEARNING_RATE)
    after = runtime.adapter()
    assert after.ranks == {**adapter.ranks, first: 0}
    fed = runtime._fed("data")  # rank 0 is fed as a pair of zeros, which must not begin to learn
    assert not any(fed[key].any() for key in factor_keys(first))


def test_rank_zero_is_refused(trained_adapter: MakeAdapter, open_runtime: OpenRuntime) -> None:
    with pytest.raises(RankOutOfRange, match="at rank 0"):
        open_runtime(truncate(trained_adapter(1), 0))


def test_adapter_of_another_bundle_is_refused(tiny_bundle: Bundle, open_runtime: OpenRuntime) -> None:
    spec = tiny_bundle.manifest.adapter
    other = AdapterSpec(spec.modules, spec.scaling + 1, spec.max_rank)
    with pytest.raises(SpecMismatch):
        open_runtime(initial_adapter(other, 2, np.random.default_rng(0)))


BAD_BATCHES = [
    pytest.param({"labels": np.array([0, 1, 2, 3])}, id="label outside the classes"),
    pytest.param({"labels": np.array([0, 1, 2, -1])}, id="negative label"),
    pytest.param({"labels": np.array([0, 1])}, id="fewer labels than texts"),
    pytest.param({"labels": np.array([0.0, 1.0, 2.0, 2.0])}, id="labels that are no whole numbers"),
    pytest.param({"input_ids": np.full((4, 6), 10**6)}, id="token outside the vocabulary"),
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
    fault: Batch, trained_adapter: MakeAdapter, open_runtime: OpenRuntime, batch: Batch
) -> None:
    runtime, untouched = open_runtime(trained_adapter(2)), open_runtime(trained_adapter(2))
    with pytest.raises(DataError):
        runtime.train_step({**batch, **fault}, learning_rate=LEARNING_RATE)
    with pytest.raises(DataError):
        runtime.evaluate({**batch, **fault})
    for _ in range(2):
        assert runtime.train_step(batch, learning_rate=LEARNING_RATE) == untouched.train_step(
            batch, learning_rate=LEARNING_RATE
        )


def test_missing_input_is_named(
    trained_adapter: MakeAdapter, open_runtime: OpenRuntime, batch: Batch
) -> None:
    runtime = open_runtime(trained_adapter(2))
    with pytest.raises(DataError, match="expected token_type_ids"):
        runtime.train_step(
            {name: array for name, array in batch.items() if name != "token_type_ids"}, learning_rate=1e-2
        )


def test_loss_that_is_not_finite_leaves_the_adapter_as_it_was(tiny_bundle: Bundle, batch: Batch) -> None:
    spec = tiny_bundle.manifest.adapter
    huge = {
        module.name: LoraFactors(
            np.full((1, module.in_features), 1e30), np.full((module.out_features, 1), 1e30)
        )
        for module in spec.modules
    }
    runtime = OnnxRuntime(tiny_bundle, Adapter(spec, huge), pruning_decay=0.99, pruning_penalty=1.0)
    assert not np.isfinite(runtime.train_step(batch, learning_rate=LEARNING_RATE))
    assert all((factors.lora_A == np.float32(1e30)).all() for _, factors in runtime.adapter())


def test_graph_that_is_no_graph_is_refused(
    tiny_bundle: Bundle, trained_adapter: MakeAdapter, tmp_path: Path
) -> None:
    graphs = tiny_bundle.manifest.graphs
    (tmp_path / graphs.training).write_bytes(b"no graph")
    broken = Bundle(tmp_path, tiny_bundle.manifest, tiny_bundle.digest)
    with pytest.raises(BundleInvalid, match=r"training\.onnx cannot be loaded"):
        OnnxRuntime(broken, trained_adapter(2), pruning_decay=0.99, pruning_penalty=0.0)


def test_missing_wheel_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, trained_adapter: MakeAdapter, open_runtime: OpenRuntime
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what the import system takes for: not installed
    with pytest.raises(DependencyMissing, match="pip install onnxruntime-training-cpu"):
        open_runtime(trained_adapter(2))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
def test_one_thread_means_the_callers_own(
    tiny_bundle: Bundle, trained_adapter: MakeAdapter, batch: Batch
) -> None:
    def new_threads(threads: int) -> int:
        before = set(os.listdir("/proc/self/task"))
        runtime = OnnxRuntime(
            tiny_bundle, trained_adapter(2), pruning_decay=0.99, pruning_penalty=0.0, threads=threads
        )
        runtime.train_step(batch, learning_rate=LEARNING_RATE)
        return len(set(os.listdir("/proc/self/task")) - before)

    assert new_threads(1) == 0
    assert new_threads(3) == 2 * (3 - 1)  # the training and the optimizer session have a pool each


TRAIN_AND_CLASSIFY = """
import sys
from pathlib import Path
import numpy as np
from edge_sdk.runtimes.onnx import OnnxModel, OnnxRuntime
from hetlora.adapter import initial_adapter
from hetlora.bundle import open_bundle

bundle = open_bundle(Path(sys.argv[1]))
adapter = initial_adapter(bundle.manifest.adapter, 2, np.random.default_rng(0))
tokens = np.array([[2, 4, 5, 3], [2, 6, 7, 3]])
batch = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
runtime = OnnxRuntime(bundle, adapter, pruning_decay=0.99, pruning_penalty=1e-3, threads=1)
runtime.train_step({**batch, "labels": np.array([0, 1])}, learning_rate=1e-3)
OnnxModel(bundle, runtime.adapter()).logits(batch)
heavy = {"torch", "transformers", "optimum", "onnx", "onnxruntime.training", "onnxruntime.training.ortmodule"}
print(sorted(heavy & sys.modules.keys()))
"""


def test_training_and_inference_import_neither_torch_nor_onnx_though_they_are_installed(
    tiny_bundle: Bundle,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TRAIN_AND_CLASSIFY, str(tiny_bundle.folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
