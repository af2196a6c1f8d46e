"""Training with ONNX Runtime on one bundle: losses, ranks, and what the adapter becomes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_sdk.runtimes.base import Batch, TrainingRuntime
from edge_sdk.runtimes.onnx import OnnxRuntime
from hetlora.adapter import Adapter, LoraFactors, initial_adapter
from hetlora.algebra import truncate
from hetlora.bundle import Bundle
from hetlora.tensors import factor_keys

MakeAdapter = Callable[[int], Adapter]
LEARNING_RATE = 1e-2
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


def test_penalty_of_a_new_adapter_changes_nothing(tiny_bundle: Bundle, batch: Batch) -> None:
    new = initial_adapter(tiny_bundle.manifest.adapter, 4, np.random.default_rng(0))  # lora_B is all zero
    runtimes = [
        OnnxRuntime(tiny_bundle, new, pruning_decay=0.5, pruning_penalty=penalty, threads=1)
        for penalty in (0.0, 1.0)
    ]
    plain, punished = (runtime.train_step(batch, learning_rate=LEARNING_RATE) for runtime in runtimes)
    assert punished == pytest.approx(plain, abs=5e-6)
    without, with_penalty = (runtime.gradients() for runtime in runtimes)
    for key, gradient in with_penalty.items():
        # At zero lora_B the penalty's slope for lora_A is the root of epsilon, 1e-6, times a unit vector.
        assert np.abs(gradient - without[key]).max() <= 2e-6
