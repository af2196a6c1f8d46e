"""Training with ONNX Runtime on one bundle: losses, ranks, and what the adapter becomes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from trainers import trainer_of

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, LoraFactors, initial_adapter
from hetlora.algebra import truncate
from hetlora.bundle import Bundle
from hetlora.errors import SpecMismatch, TrainingDiverged
from hetlora.tensors import factor_keys, to_tensors

MakeAdapter = Callable[[int], Adapter]
OpenTiny = Callable[[Adapter], Trainer]


@pytest.mark.parametrize("rank", [1, 2, 8])
def test_loss_falls_at_every_rank_of_one_bundle(
    rank: int, tiny_bundle: Bundle, open_tiny: OpenTiny, batch: Batch
) -> None:
    new = initial_adapter(tiny_bundle.manifest.adapter, rank, np.random.default_rng(0))
    trainer = open_tiny(new)
    losses = [trainer.step(batch) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]
    assert trainer.adapter().ranks == new.ranks


def test_new_runtime_holds_the_adapter_as_given(trained_adapter: MakeAdapter, open_tiny: OpenTiny) -> None:
    given = trained_adapter(3)
    held = open_tiny(given).adapter()
    for module, factors in held:
        assert (factors.lora_A == given.factors[module.name].lora_A).all()
        assert (factors.lora_B == given.factors[module.name].lora_B).all()


def test_adapter_is_a_copy_that_training_leaves_alone(
    trained_adapter: MakeAdapter, open_tiny: OpenTiny, batch: Batch
) -> None:
    trainer = open_tiny(trained_adapter(3))
    before = trainer.adapter()
    trainer.step(batch)
    after = trainer.adapter()
    for module, factors in before:
        assert (factors.lora_A == trained_adapter(3).factors[module.name].lora_A).all()
        assert (factors.lora_A != after.factors[module.name].lora_A).any()


def test_same_start_and_batches_give_the_same_adapter(
    trained_adapter: MakeAdapter, open_tiny: OpenTiny, batch: Batch
) -> None:
    def train() -> Adapter:
        trainer = open_tiny(trained_adapter(4))
        for _ in range(3):
            trainer.step(batch)
        return trainer.adapter()

    first, second = train(), train()
    assert all((factors.lora_B == second.factors[module.name].lora_B).all() for module, factors in first)


def test_loss_of_the_first_step_is_that_of_the_evaluation_without_penalty(
    tiny_bundle: Bundle, trained_adapter: MakeAdapter, batch: Batch
) -> None:
    trainer = trainer_of(tiny_bundle, trained_adapter(4))
    evaluation = trainer.evaluate(batch)
    assert evaluation.logits.shape == (4, 3)
    assert trainer.step(batch) == pytest.approx(evaluation.loss, abs=1e-6)


def test_evaluation_sees_what_training_changed(
    trained_adapter: MakeAdapter, open_tiny: OpenTiny, batch: Batch
) -> None:
    trainer = open_tiny(trained_adapter(4))
    before = trainer.evaluate(batch)
    for _ in range(5):
        trainer.step(batch)
    assert trainer.evaluate(batch).loss < before.loss


def test_padding_does_not_change_the_loss(
    trained_adapter: MakeAdapter, open_tiny: OpenTiny, batch: Batch
) -> None:
    longer = {name: np.pad(array, ((0, 0), (0, 3))) for name, array in batch.items() if name != "labels"}
    trainer = open_tiny(trained_adapter(2))
    padded = trainer.evaluate({**longer, "labels": batch["labels"]})
    assert padded.loss == pytest.approx(trainer.evaluate(batch).loss, abs=1e-5)


def test_module_of_rank_zero_stays_untrained_among_others(
    trained_adapter: MakeAdapter, open_tiny: OpenTiny, batch: Batch
) -> None:
    adapter = trained_adapter(4)
    first = adapter.spec.modules[0].name
    trainer = open_tiny(
        Adapter(adapter.spec, {**adapter.factors, first: truncate(adapter, 0).factors[first]})
    )
    for _ in range(3):
        trainer.step(batch)
    after = trainer.adapter()
    assert after.ranks == {**adapter.ranks, first: 0}
    gradients = trainer.gradients()
    assert [gradients[key].size for key in factor_keys(first)] == [0, 0]


def test_loss_that_is_not_finite_leaves_the_adapter_as_it_was(tiny_bundle: Bundle, batch: Batch) -> None:
    spec = tiny_bundle.manifest.adapter
    huge = {
        module.name: LoraFactors(
            np.full((1, module.in_features), 1e30), np.full((module.out_features, 1), 1e30)
        )
        for module in spec.modules
    }
    trainer = trainer_of(tiny_bundle, Adapter(spec, huge), pruning_decay=0.99, pruning_penalty=1.0)
    with pytest.raises(TrainingDiverged):
        trainer.step(batch)
    assert all((factors.lora_A == np.float32(1e30)).all() for _, factors in trainer.adapter())


def test_penalty_of_a_new_adapter_changes_nothing(tiny_bundle: Bundle, batch: Batch) -> None:
    new = initial_adapter(tiny_bundle.manifest.adapter, 4, np.random.default_rng(0))  # lora_B is all zero
    trainers = [
        trainer_of(tiny_bundle, new, pruning_decay=0.5, pruning_penalty=penalty) for penalty in (0.0, 1.0)
    ]
    plain, punished = (trainer.step(batch) for trainer in trainers)
    assert punished == pytest.approx(plain, abs=5e-6)
    without, with_penalty = (trainer.gradients() for trainer in trainers)
    for key, gradient in with_penalty.items():
        # At zero lora_B the penalty's slope for lora_A is the root of epsilon, 1e-6, times a unit vector.
        assert np.abs(gradient - without[key]).max() <= 2e-6


@pytest.mark.parametrize("rank", [1, 2, 8])
def test_factors_of_another_rank_than_the_graph_was_opened_with_are_refused(
    tiny_bundle: Bundle, batch: Batch, rank: int
) -> None:
    spec, rng = tiny_bundle.manifest.adapter, np.random.default_rng(0)
    runtime = OnnxRuntime(tiny_bundle, initial_adapter(spec, 4, rng).ranks)
    with pytest.raises(SpecMismatch, match=r"shape of .*lora_A"):
        runtime.gradients(batch, to_tensors(initial_adapter(spec, rank, rng)))
