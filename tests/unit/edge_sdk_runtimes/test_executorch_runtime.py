from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from parity import MAX_TOKENS, batch_for, trained_adapter

from edge_sdk.runtimes.base import Batch, RuntimeFactory, TrainingRuntime
from edge_sdk.runtimes.executorch import ExecutorchModel, ExecutorchRuntime
from edge_sdk.runtimes.losses import mean_loss
from hetlora.adapter import Adapter, AdapterSpec, initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, DataError, RankOutOfRange, SettingsError, SpecMismatch
from hetlora.manifest import ExecutorchFiles, Manifest

LEARNING_RATE = 1e-2
LOSS_TOLERANCE = 5e-6

needs_lowering = pytest.mark.slow  # the programs take half a minute to make, once for all tests


@pytest.fixture
def bundle(executorch_case: Callable[[str], tuple[Path, Bundle]]) -> Bundle:
    return executorch_case("bert")[1]


@pytest.fixture
def batch(bundle: Bundle) -> Batch:
    return batch_for(bundle, rows=4, tokens=9)


def _open(bundle: Bundle, adapter: Adapter, *, decay: float = 0.5, penalty: float = 0.0) -> ExecutorchRuntime:
    return ExecutorchRuntime(bundle, adapter, pruning_decay=decay, pruning_penalty=penalty, threads=1)


@needs_lowering
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_loss_falls_at_every_rank_of_one_program(rank: int, bundle: Bundle, batch: Batch) -> None:
    factory: RuntimeFactory = ExecutorchRuntime
    new = initial_adapter(bundle.manifest.adapter, rank, np.random.default_rng(0))
    runtime: TrainingRuntime = factory(bundle, new, pruning_decay=0.99, pruning_penalty=1e-3, threads=1)
    losses = [runtime.train_step(batch, learning_rate=LEARNING_RATE) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]
    assert runtime.adapter().ranks == new.ranks


@needs_lowering
def test_penalty_is_in_the_loss_of_training_and_not_of_evaluation(bundle: Bundle, batch: Batch) -> None:
    adapter = trained_adapter(bundle.manifest.adapter, (4,))
    plain, punished = _open(bundle, adapter), _open(bundle, adapter, penalty=1.0)
    evaluation = punished.evaluate(batch)
    assert evaluation.logits.shape == (4, 3)
    assert abs(plain.train_step(batch, learning_rate=LEARNING_RATE) - evaluation.loss) <= LOSS_TOLERANCE
    assert punished.train_step(batch, learning_rate=LEARNING_RATE) > evaluation.loss + 0.1


@needs_lowering
def test_penalty_acts_on_the_tail_alone(bundle: Bundle, batch: Batch) -> None:
    adapter = trained_adapter(bundle.manifest.adapter, (4,))
    runtimes = _open(bundle, adapter), _open(bundle, adapter, penalty=1.0)
    for runtime in runtimes:
        runtime.train_step(batch, learning_rate=LEARNING_RATE)
    without, with_penalty = (runtime.gradients() for runtime in runtimes)
    for key, gradient in with_penalty.items():
        difference = np.abs(gradient - without[key])
        ranks_first = difference if "lora_A" in key else difference.T
        assert ranks_first[:2].max() <= 1e-6  # floor(0.5 * 4) = 2 ranks are kept
        assert ranks_first[2:].max() >= 1e-2


@needs_lowering
def test_module_of_rank_0_is_left_alone(bundle: Bundle, batch: Batch) -> None:
    adapter = trained_adapter(bundle.manifest.adapter, (0, 3))
    runtime = _open(bundle, adapter, penalty=0.1)
    runtime.train_step(batch, learning_rate=LEARNING_RATE)
    assert runtime.adapter().ranks == adapter.ranks
    shapes = {key: gradient.shape for key, gradient in runtime.gradients().items()}
    name, other = (module.name for module in adapter.spec.modules[:2])
    assert shapes[f"base_model.model.{name}.lora_A.weight"][0] == 0
    assert shapes[f"base_model.model.{other}.lora_B.weight"][1] == 3


@needs_lowering
def test_adapter_is_a_copy_that_training_leaves_alone(bundle: Bundle, batch: Batch) -> None:
    given = trained_adapter(bundle.manifest.adapter, (3,))
    runtime = _open(bundle, given)
    before = runtime.adapter()
    runtime.train_step(batch, learning_rate=LEARNING_RATE)
    for module, factors in before:
        assert (factors.lora_A == given.factors[module.name].lora_A).all()
        assert (factors.lora_A != runtime.adapter().factors[module.name].lora_A).any()


@needs_lowering
def test_loss_that_is_not_finite_leaves_the_adapter(bundle: Bundle, batch: Batch) -> None:
    runtime = _open(bundle, trained_adapter(bundle.manifest.adapter, (3,)), penalty=np.inf)
    before = runtime.adapter()
    assert not np.isfinite(runtime.train_step(batch, learning_rate=LEARNING_RATE))
    for module, factors in runtime.adapter():
        assert (factors.lora_A == before.factors[module.name].lora_A).all()


@needs_lowering
def test_no_adapter_is_the_same_as_a_new_one(bundle: Bundle, batch: Batch) -> None:
    new = initial_adapter(bundle.manifest.adapter, 4, np.random.default_rng(0))  # lora_B is zero
    untrained = ExecutorchModel(bundle).logits(batch)
    assert np.abs(untrained - ExecutorchModel(bundle, new).logits(batch)).max() <= 1e-5
    other = trained_adapter(bundle.manifest.adapter, (4,))
    assert np.abs(untrained - ExecutorchModel(bundle).logits(batch, adapter=other)).max() > 1e-2


@needs_lowering
def test_text_beyond_the_programs_limit_is_refused(bundle: Bundle) -> None:
    runtime = _open(bundle, trained_adapter(bundle.manifest.adapter, (3,)))
    with pytest.raises(DataError, match=f"tokens of input_ids in a batch; .*expected up to {MAX_TOKENS}"):
        runtime.train_step(batch_for(bundle, tokens=MAX_TOKENS + 1), learning_rate=LEARNING_RATE)


@needs_lowering
def test_token_outside_the_vocabulary_is_refused(bundle: Bundle, batch: Batch) -> None:
    runtime = _open(bundle, trained_adapter(bundle.manifest.adapter, (3,)))
    strange = {**batch, "input_ids": np.full_like(batch["input_ids"], 10**6)}
    with pytest.raises(DataError, match="refuses the batch"):
        runtime.train_step(strange, learning_rate=LEARNING_RATE)
    assert runtime.train_step(batch, learning_rate=LEARNING_RATE) > 0  # and goes on


@needs_lowering
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda manifest: {"inputs": manifest.inputs[:-1]},
            r"inputs of training\.pte; got .* of the manifest",
        ),
        (
            lambda manifest: {"adapter": _with_features_fewer(manifest.adapter)},
            r"lora_A.weight of training\.pte",
        ),
    ],
    ids=["an input fewer", "a feature fewer"],
)
def test_program_that_differs_from_the_manifest_is_refused_when_it_is_opened(
    change: Callable[[Manifest], dict[str, object]], message: str, bundle: Bundle
) -> None:
    manifest = bundle.manifest.model_copy(update=change(bundle.manifest))
    with pytest.raises(BundleInvalid, match=message):
        _open(replace(bundle, manifest=manifest), trained_adapter(manifest.adapter, (3,)))


def _with_features_fewer(spec: AdapterSpec) -> AdapterSpec:
    first, *others = spec.modules
    return replace(spec, modules=(replace(first, in_features=first.in_features - 1), *others))


@needs_lowering
def test_inference_program_in_place_of_the_training_one_is_refused(bundle: Bundle) -> None:
    files = bundle.manifest.executorch
    assert files is not None
    swapped = files.model_copy(update={"training": files.inference})
    manifest = bundle.manifest.model_copy(update={"executorch": swapped})
    with pytest.raises(BundleInvalid, match=r"inputs of inference\.pte"):
        _open(replace(bundle, manifest=manifest), trained_adapter(manifest.adapter, (3,)))


@needs_lowering
def test_learning_rate_that_is_no_number_is_refused(bundle: Bundle, batch: Batch) -> None:
    runtime = _open(bundle, trained_adapter(bundle.manifest.adapter, (3,)))
    with pytest.raises(SettingsError, match="learning_rate; got nan"):
        runtime.train_step(batch, learning_rate=float("nan"))


def test_penalty_below_zero_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(SettingsError, match=r"pruning_penalty; got -1\.0"):
        _open(tiny_bundle, trained_adapter(tiny_bundle.manifest.adapter, (2,)), penalty=-1.0)


@needs_lowering
def test_program_without_its_weights_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    files = bundle.manifest.executorch
    assert files is not None
    (tmp_path / files.training).write_bytes(bundle.path(files.training).read_bytes())
    with pytest.raises(BundleInvalid, match=r"training\.pte cannot be loaded"):
        _open(replace(bundle, folder=tmp_path), trained_adapter(bundle.manifest.adapter, (3,)))


# A device's process: trains one step, and prints what of the exporter came along.
DEVICE = """
import pickle, sys
from edge_sdk.runtimes.executorch import ExecutorchRuntime
bundle, adapter, batch = pickle.load(sys.stdin.buffer)
runtime = ExecutorchRuntime(bundle, adapter, pruning_decay=0.9, pruning_penalty=0.0, threads=1)
runtime.train_step(batch, learning_rate=0.01)
heavy = ("executorch.exir", "transformers", "onnx", "torchao", "export", "torch._dynamo", "sympy")
print([name for name in heavy if name in sys.modules])
"""


@needs_lowering
def test_device_needs_nothing_of_the_exporter(bundle: Bundle, batch: Batch) -> None:
    import pickle

    given = pickle.dumps((bundle, trained_adapter(bundle.manifest.adapter, (3,)), dict(batch)))
    done = subprocess.run([sys.executable, "-c", DEVICE], input=given, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().splitlines()[-1] == "[]"


def test_bundle_without_programs_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleInvalid, match="no ExecuTorch programs"):
        _open(tiny_bundle, trained_adapter(tiny_bundle.manifest.adapter, (2,)))


def test_damaged_program_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    files = ExecutorchFiles(training="a.pte", inference="b.pte", base_weights="c.ptd")
    for name in ("a.pte", "b.pte", "c.ptd"):
        (tmp_path / name).write_bytes(b"no program at all, and far too short")
    manifest = tiny_bundle.manifest.model_copy(update={"executorch": files})
    with pytest.raises(BundleInvalid, match=r"a\.pte cannot be loaded"):
        _open(Bundle(tmp_path, manifest, "0" * 64), trained_adapter(manifest.adapter, (2,)))


def test_adapter_of_another_specification_is_refused(tiny_bundle: Bundle) -> None:
    other = replace(tiny_bundle.manifest.adapter, scaling=3.0)
    with pytest.raises(SpecMismatch):
        _open(tiny_bundle, trained_adapter(other, (2,)))


def test_adapter_of_rank_0_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(RankOutOfRange):
        _open(tiny_bundle, trained_adapter(tiny_bundle.manifest.adapter, (0,)))


def test_mean_loss_scores_each_position_by_the_next_label_that_counts() -> None:
    # Two classes, logits (0, ln 3): probabilities 1/4 and 3/4. Labels after the first: 1, ignored, 0.
    logits = np.tile(np.log(np.array([1, 3], np.float32)), (1, 4, 1))
    labels = np.array([[0, 1, -100, 0]])
    # -(ln 3/4 + ln 1/4) / 2
    assert mean_loss(logits, labels) == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2, rel=1e-6)


def test_mean_loss_without_labels_is_zero() -> None:
    assert mean_loss(np.ones((1, 3, 2), np.float32), np.full((1, 3), -100)) == 0
