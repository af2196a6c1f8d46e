from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from parity import MAX_TOKENS, batch_for, trained_adapter
from trainers import trainer_of

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.executorch import ExecutorchModel, ExecutorchRuntime
from edge_sdk.runtimes.executorch_library import batch_refused
from edge_sdk.runtimes.losses import mean_loss
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, DataError, RankOutOfRange, SpecMismatch, TrainingDiverged
from hetlora.manifest import ExecutorchFiles, Manifest
from hetlora.tensors import to_tensors

LOSS_TOLERANCE = 5e-6

needs_lowering = pytest.mark.slow  # the programs take half a minute to make, once for all tests


@pytest.fixture
def bundle(executorch_case: Callable[[str], tuple[Path, Bundle]]) -> Bundle:
    return executorch_case("bert")[1]


@pytest.fixture
def batch(bundle: Bundle) -> Batch:
    return batch_for(bundle, rows=4, tokens=9)


def _open(bundle: Bundle, adapter: Adapter, *, penalty: float = 0.0) -> Trainer:
    return trainer_of(
        bundle,
        adapter,
        runtime=ExecutorchRuntime,
        pruning_decay=0.5,
        pruning_penalty=penalty,
        learning_rate=1e-2,
    )


@needs_lowering
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_loss_falls_at_every_rank_of_one_program(rank: int, bundle: Bundle, batch: Batch) -> None:
    new = initial_adapter(bundle.manifest.adapter, rank, np.random.default_rng(0))
    trainer = _open(bundle, new, penalty=1e-3)
    losses = [trainer.step(batch) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]
    assert trainer.adapter().ranks == new.ranks


@needs_lowering
def test_penalty_is_in_the_loss_of_training_and_not_of_evaluation(bundle: Bundle, batch: Batch) -> None:
    adapter = trained_adapter(bundle.manifest.adapter, (4,))
    plain, punished = _open(bundle, adapter), _open(bundle, adapter, penalty=1.0)
    evaluation = punished.evaluate(batch)
    assert evaluation.logits.shape == (4, 3)
    assert abs(plain.step(batch) - evaluation.loss) <= LOSS_TOLERANCE
    assert punished.step(batch) > evaluation.loss + 0.1


@needs_lowering
def test_penalty_acts_on_the_tail_alone(bundle: Bundle, batch: Batch) -> None:
    adapter = trained_adapter(bundle.manifest.adapter, (4,))
    trainers = _open(bundle, adapter), _open(bundle, adapter, penalty=1.0)
    for trainer in trainers:
        trainer.step(batch)
    without, with_penalty = (trainer.gradients() for trainer in trainers)
    for key, gradient in with_penalty.items():
        difference = np.abs(gradient - without[key])
        ranks_first = difference if "lora_A" in key else difference.T
        assert ranks_first[:2].max() <= 1e-6  # floor(0.5 * 4) = 2 ranks are kept
        assert ranks_first[2:].max() >= 1e-2


@needs_lowering
def test_module_of_rank_0_is_left_alone(bundle: Bundle, batch: Batch) -> None:
    adapter = trained_adapter(bundle.manifest.adapter, (0, 3))
    trainer = _open(bundle, adapter, penalty=0.1)
    trainer.step(batch)
    assert trainer.adapter().ranks == adapter.ranks
    shapes = {key: gradient.shape for key, gradient in trainer.gradients().items()}
    name, other = (module.name for module in adapter.spec.modules[:2])
    assert shapes[f"base_model.model.{name}.lora_A.weight"][0] == 0
    assert shapes[f"base_model.model.{other}.lora_B.weight"][1] == 3


@needs_lowering
def test_adapter_is_a_copy_that_training_leaves_alone(bundle: Bundle, batch: Batch) -> None:
    given = trained_adapter(bundle.manifest.adapter, (3,))
    trainer = _open(bundle, given)
    before = trainer.adapter()
    trainer.step(batch)
    for module, factors in before:
        assert (factors.lora_A == given.factors[module.name].lora_A).all()
        assert (factors.lora_A != trainer.adapter().factors[module.name].lora_A).any()


@needs_lowering
def test_loss_that_is_not_finite_leaves_the_adapter(bundle: Bundle, batch: Batch) -> None:
    given = trained_adapter(bundle.manifest.adapter, (3,))
    huge = {name: LoraFactors(own.lora_A + 1e30, own.lora_B + 1e30) for name, own in given.factors.items()}
    trainer = _open(bundle, Adapter(given.spec, huge), penalty=1.0)
    before = trainer.adapter()
    with pytest.raises(TrainingDiverged):
        trainer.step(batch)
    for module, factors in trainer.adapter():
        assert (factors.lora_A == before.factors[module.name].lora_A).all()


@needs_lowering
def test_no_adapter_is_the_same_as_a_new_one(bundle: Bundle, batch: Batch) -> None:
    new = initial_adapter(bundle.manifest.adapter, 4, np.random.default_rng(0))  # lora_B is zero
    untrained = ExecutorchModel(bundle).logits(batch)
    assert np.abs(untrained - ExecutorchModel(bundle, to_tensors(new)).logits(batch)).max() <= 1e-5
    other = trained_adapter(bundle.manifest.adapter, (4,))
    assert np.abs(untrained - ExecutorchModel(bundle).logits(batch, adapter=other)).max() > 1e-2


@needs_lowering
def test_text_beyond_the_programs_limit_is_refused(bundle: Bundle) -> None:
    trainer = _open(bundle, trained_adapter(bundle.manifest.adapter, (3,)))
    with pytest.raises(DataError, match=f"tokens of input_ids in a batch; .*expected up to {MAX_TOKENS}"):
        trainer.step(batch_for(bundle, tokens=MAX_TOKENS + 1))


@needs_lowering
def test_token_outside_the_vocabulary_is_refused(bundle: Bundle, batch: Batch) -> None:
    trainer = _open(bundle, trained_adapter(bundle.manifest.adapter, (3,)))
    strange = {**batch, "input_ids": np.full_like(batch["input_ids"], 10**6)}
    with pytest.raises(DataError, match="refuses the batch"):
        trainer.step(strange)
    assert trainer.step(batch) > 0  # and goes on


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
from edge_sdk.training.trainer import open_trainer
from hetlora.messages.device import TrainingSettings
bundle, adapter, batch = pickle.load(sys.stdin.buffer)
open_trainer(ExecutorchRuntime, bundle, adapter, TrainingSettings(), threads=1).step(batch)
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


# Packs the weights of one program after the other with a little more memory each time.
LITTLE_MEMORY = """
import pickle, resource, sys
import psutil
from edge_sdk.runtimes.executorch import ExecutorchModel
bundle, batch = pickle.load(sys.stdin.buffer)
rooms = [2**power for power in range(14, 23)]
models = [ExecutorchModel(bundle, threads=1) for _ in rooms]
for room, model in zip(rooms, models, strict=True):
    held = psutil.Process().memory_info().data
    resource.setrlimit(resource.RLIMIT_DATA, (held + room, resource.RLIM_INFINITY))
    try:
        model.logits(batch)
        print("answered")
    except Exception as error:
        print(type(error).__name__, error.__cause__)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
models[0].logits(batch)  # with memory again it goes on
"""


@needs_lowering
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel holds a process to such a limit")
def test_lack_of_memory_is_told_as_such_and_not_as_a_fault_of_the_batch(bundle: Bundle, batch: Batch) -> None:
    import pickle

    given = pickle.dumps((bundle, dict(batch)))
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY], input=given, capture_output=True, timeout=120, check=True
    )
    told = done.stdout.decode().splitlines()
    print(told)
    assert {line.split()[0] for line in told} == {"MemoryError", "answered"}
    assert told[-1] == "answered"
    assert any("error: 0x1" in line for line in told)  # XNNPACK's


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("Failed to execute method forward, error: 0x1"), MemoryError),
        (RuntimeError("Failed to load method forward, error: 0x:21"), MemoryError),
        (RuntimeError("Failed to execute method forward, error: 0x31"), MemoryError),
        (MemoryError("std::bad_alloc"), MemoryError),
        (RuntimeError("Failed to execute method forward, error: 0x12"), DataError),
        (RuntimeError("no code at all"), DataError),
    ],
)
def test_error_of_the_library_is_one_of_memory_or_of_the_batch(
    error: Exception, expected: type[Exception]
) -> None:
    assert type(batch_refused(error)) is expected


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
