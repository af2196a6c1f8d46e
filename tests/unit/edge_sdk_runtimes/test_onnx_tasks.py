"""Training for each task, with unequal ranks and a module that is left out. Parity is export's to test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from parity import trained_adapter
from trainers import trainer_of

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxModel
from edge_sdk.training.trainer import Trainer
from hetlora.bundle import Bundle
from hetlora.errors import DataError
from hetlora.tensors import to_tensors

FAMILIES = ("llama", "t5", "vit")
RANKS = (3, 0, 1)  # go round over the modules
LOSS_TOLERANCE = 1e-5

FamilyBundle = Callable[[str], tuple[Path, Bundle]]


@pytest.fixture(params=FAMILIES)
def bundle(request: pytest.FixtureRequest, family_bundle: FamilyBundle) -> Bundle:
    return family_bundle(request.param)[1]


def _batch(bundle: Bundle) -> Batch:
    rng = np.random.default_rng(1)
    if bundle.manifest.task == "image-classification":
        return {
            "pixel_values": rng.standard_normal((2, 3, 32, 32)).astype(np.float32),
            "labels": np.array([2, 0]),
        }
    ids = rng.integers(4, 16, (2, 6)) * np.array([[1] * 6, [1] * 4 + [0] * 2])
    own_target = bundle.manifest.task == "text2text-generation"
    labels = rng.integers(4, 16, (2, 3)) if own_target else np.where(ids > 0, ids, -100)
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "labels": labels}


def _open(bundle: Bundle, penalty: float = 0.0) -> Trainer:
    adapter = trained_adapter(bundle.manifest.adapter, RANKS)
    return trainer_of(bundle, adapter, pruning_decay=0.5, pruning_penalty=penalty, learning_rate=1e-2)


def test_loss_falls_and_ranks_stay(bundle: Bundle) -> None:
    trainer, batch = _open(bundle, penalty=1e-3), _batch(bundle)
    before = trainer.adapter()
    losses = [trainer.step(batch) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]
    assert set(before.ranks.values()) == set(RANKS)
    assert trainer.adapter().ranks == before.ranks


def test_gradients_have_the_shapes_of_their_factors(bundle: Bundle) -> None:
    trainer = _open(bundle, penalty=0.1)
    trainer.step(_batch(bundle))
    shapes = {key: tensor.shape for key, tensor in to_tensors(trainer.adapter()).items()}
    gradients = trainer.gradients()
    assert {key: gradient.shape for key, gradient in gradients.items()} == shapes
    assert all(gradient.any() for gradient in gradients.values() if gradient.size)


def test_evaluation_has_the_loss_of_the_first_step_and_logits_of_classes_alone(bundle: Bundle) -> None:
    trainer, batch = _open(bundle), _batch(bundle)
    evaluation = trainer.evaluate(batch)
    first = trainer.step(batch)
    assert first == pytest.approx(evaluation.loss, abs=LOSS_TOLERANCE)
    if bundle.manifest.task == "image-classification":
        assert evaluation.logits is not None
        own = OnnxModel(bundle, to_tensors(trained_adapter(bundle.manifest.adapter, RANKS))).logits(batch)
        assert np.abs(evaluation.logits - own).max() <= LOSS_TOLERANCE
    else:
        assert evaluation.logits is None


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_micro_batches_take_the_step_of_the_whole_batch(bundle: Bundle, rows: int) -> None:
    small = _batch(bundle)
    batch = {name: np.concatenate([array] * 2 + [array[:1]]) for name, array in small.items()}
    adapter = trained_adapter(bundle.manifest.adapter, RANKS)
    whole, parts = (trainer_of(bundle, adapter, micro_batch=most) for most in (None, rows))
    for _ in range(2):
        assert parts.step(batch) == pytest.approx(whole.step(batch), abs=LOSS_TOLERANCE)
        gradients = whole.gradients()
        for key, gradient in parts.gradients().items():
            largest = np.abs(gradients[key]).max(initial=0)
            assert np.abs(gradient - gradients[key]).max(initial=0) <= 1e-4 * largest, key


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_batch_in_which_no_label_counts_teaches_nothing(family: str, family_bundle: FamilyBundle) -> None:
    bundle = family_bundle(family)[1]
    batch = {**_batch(bundle), "labels": np.full_like(_batch(bundle)["labels"], -100)}
    trainer = _open(bundle)
    assert trainer.evaluate(batch).loss == 0
    assert trainer.step(batch) == 0
    assert not any(gradient.any() for gradient in trainer.gradients().values())
    assert trainer.step(_batch(bundle)) > 0  # and goes on


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_ignored_padding_does_not_change_the_loss(family: str, family_bundle: FamilyBundle) -> None:
    bundle = family_bundle(family)[1]
    batch, trainer = _batch(bundle), _open(bundle)
    longer = {
        name: np.pad(array, ((0, 0), (0, 3)), constant_values=-100 if name == "labels" else 0)
        for name, array in batch.items()
    }
    assert trainer.evaluate(longer).loss == pytest.approx(trainer.evaluate(batch).loss, abs=LOSS_TOLERANCE)


def test_picture_of_another_size_is_refused(family_bundle: FamilyBundle) -> None:
    trainer = _open(family_bundle("vit")[1])
    batch = {"pixel_values": np.zeros((1, 3, 32, 33), np.float32), "labels": np.array([0])}
    with pytest.raises(DataError, match=r"got \(1, 3, 32, 33\); expected \(batch, 3, 32, 32\)"):
        trainer.step(batch)


def test_token_outside_the_vocabulary_is_refused_and_training_goes_on(family_bundle: FamilyBundle) -> None:
    bundle = family_bundle("llama")[1]
    trainer, untouched, batch = _open(bundle), _open(bundle), _batch(bundle)
    strange = {**batch, "input_ids": np.full_like(batch["input_ids"], 10**6)}
    with pytest.raises(DataError, match="input_ids of a batch are out of range; got 12 of 12; expected 0 to"):
        trainer.step(strange)
    for _ in range(2):
        assert trainer.step(batch) == untouched.step(batch)
