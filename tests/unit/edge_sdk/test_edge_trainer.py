"""One adapter being trained: what its steps make of what a runtime says."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from fake_bundle import SPEC, adapter_of, lora_b_of, tiny_files, tiny_manifest
from fake_runtime import QuadraticRuntime, Telling
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.runtimes.base import Batch, Factors
from edge_sdk.training.micro_batches import micro_batches
from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.errors import RankOutOfRange, SettingsError, SpecMismatch, TrainingDiverged
from hetlora.manifest import Task
from hetlora.messages.device import Adaptation, TrainingSettings
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import factor_keys, to_tensors

MANIFEST = tiny_manifest(tiny_files())
LORA_A, LORA_B = factor_keys("query")
EVERYTHING = TrainingSettings(
    learning_rate=0.1,
    schedule="cosine",
    warm_up_steps=3,
    max_gradient_norm=0.5,
    proximal=2.0,
    divergence_factor=1.5,
    divergence_steps=9,
    pruning_decay=0.5,
    pruning_penalty=0.5,
)
DESCENT = TrainingSettings(learning_rate=0.5, optimizer="sgd", pruning_penalty=0)


class Regression(QuadraticRuntime):
    """Loss = mean over the labels that count of (label - lora_B)^2 / 2, so that rows matter."""

    def __init__(self, task: Task = "text-classification", most_rows: int | None = None) -> None:
        super().__init__()
        self.task, self.most_rows = task, most_rows

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        self._note(batch, factors)
        labels = batch["labels"] if self.task != "text-generation" else batch["labels"][..., 1:]
        counting = labels[labels >= 0].astype(np.float32)
        slopes = {key: 0 * own for key, own in factors.items()}
        if not counting.size:
            return 0.0, slopes
        slopes[LORA_B] = factors[LORA_B] - counting.mean()
        return float(np.mean((counting - factors[LORA_B].mean()) ** 2) / 2), slopes


def batch_of(labels: list[int] | list[list[int]]) -> Batch:
    tokens = np.ones((len(labels), np.array(labels).reshape(len(labels), -1).shape[1]), np.int64)
    return {"input_ids": tokens, "attention_mask": tokens, "labels": np.array(labels)}


@settings(deadline=None)  # the machine may be busy
@given(
    rows=st.lists(st.lists(st.sampled_from([-100, 2, 5]), min_size=3, max_size=3), min_size=1, max_size=9),
    most=st.integers(1, 10),
    task=st.sampled_from(["text-generation", "text2text-generation"]),
)
def test_micro_batches_take_the_step_of_the_whole_batch(rows: list[list[int]], most: int, task: Task) -> None:
    manifest = tiny_manifest(tiny_files(), task)
    whole, parts = (
        Trainer(Regression(task), adapter_of(2), manifest, DESCENT, micro_batch=rows_of)
        for rows_of in (None, most)
    )
    for _ in range(2):
        assert parts.step(batch_of(rows)) == pytest.approx(whole.step(batch_of(rows)), rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(lora_b_of(parts.adapter()), lora_b_of(whole.adapter()), rtol=1e-5)


def test_examples_of_a_classifier_weigh_the_same_in_unequal_parts() -> None:
    runtime = Regression(most_rows=4)
    trainer = Trainer(runtime, adapter_of(1, b=0.25), MANIFEST, DESCENT, micro_batch=2)
    trainer.step(batch_of([0, 0, 0, 1, 1]))
    assert [len(batch["labels"]) for batch in runtime.batches] == [2, 2, 1]
    # Half of the way from 0.25 to the mean of the labels, 0.4.
    np.testing.assert_allclose(lora_b_of(trainer.adapter()), 0.325, rtol=1e-6)


def test_runtime_that_takes_fewer_rows_is_given_no_more() -> None:
    runtime = Regression(most_rows=1)
    Trainer(runtime, adapter_of(1), MANIFEST, DESCENT, micro_batch=8).step(batch_of([0, 1]))
    assert len(runtime.batches) == 2


@pytest.mark.parametrize("task", ["text-generation", "text2text-generation"])
def test_part_without_a_label_that_counts_is_left_out_unless_all_are(task: Task) -> None:
    manifest = tiny_manifest(tiny_files(), task)
    unread, read = [-100, -100], [-100, 3]
    assert [share for _, share in micro_batches(manifest, batch_of([unread, read, read]), 1)] == [0.5, 0.5]
    assert [share for _, share in micro_batches(manifest, batch_of([unread, unread]), 1)] == [0.5, 0.5]


@pytest.mark.parametrize(
    "settings",
    [TrainingSettings(learning_rate=0.1), DESCENT.model_copy(update={"momentum": 0.9}), EVERYTHING],
    ids=["adamw", "momentum", "everything"],
)
@pytest.mark.parametrize("trained", ["both", "lora_A", "core"])
def test_training_that_was_interrupted_goes_on_bit_for_bit(settings: TrainingSettings, trained: str) -> None:
    how = Parametrisation(
        Adaptation(trained=trained),  # type: ignore[arg-type]
        cores={"query": np.eye(2, dtype=np.float32)} if trained == "core" else {},
    )

    def opened() -> Trainer:
        return Trainer(QuadraticRuntime(), adapter_of(2), MANIFEST, settings, how)

    straight, before, after = opened(), opened(), opened()
    losses = [straight.step(batch_of([0, 1])) for _ in range(5)]
    told = [before.step(batch_of([0, 1])) for _ in range(2)]
    state = deepcopy(before.state_in_place())
    before.step(batch_of([0, 1]))  # what was taken is a copy
    after.restore(state)
    assert (after.steps_done, after.first_loss, after.last_loss) == (2, losses[0], losses[1])
    assert told + [after.step(batch_of([0, 1])) for _ in range(3)] == losses
    kept, expected = after.state_in_place(), straight.state_in_place()
    assert kept.keys() == expected.keys()
    assert all((kept[key] == expected[key]).all() for key in expected)
    assert tensors_to_bytes(kept) == tensors_to_bytes(expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"trained/" + LORA_B: np.zeros((6, 3), np.float32)},
        {"trained/" + LORA_B: np.zeros((6, 2), np.float16)},
        {"counts": np.zeros(3, np.int64)},
        {"counts": np.array([-1, 0])},
        {"another": np.zeros(1, np.float32)},
    ],
    ids=["rank", "dtype", "counts", "below 0", "unknown"],
)
def test_state_of_something_else_is_refused_and_changes_nothing(wrong: dict[str, Tensor]) -> None:
    trainer = Trainer(QuadraticRuntime(), adapter_of(2), MANIFEST, DESCENT)
    state = {key: np.ones_like(tensor) for key, tensor in trainer.state_in_place().items()}
    with pytest.raises(SpecMismatch):
        trainer.restore({**state, **wrong})
    del state["counts"]
    with pytest.raises(SpecMismatch, match="1 missing"):
        trainer.restore(state)
    assert (lora_b_of(trainer.adapter()) == 0.25).all()
    assert trainer.steps_done == 0


def test_penalty_presses_on_the_tail_and_is_in_the_loss_of_steps_alone() -> None:
    settings = DESCENT.model_copy(update={"pruning_decay": 0.5, "pruning_penalty": 0.25})
    trainer = Trainer(Telling(1.0, slope=0), adapter_of(2, a=1, b=2), MANIFEST, settings)
    # The second of 2 ranks: 4 ones and 6 twos have the norms 2 and sqrt 24, whose product is the penalty.
    assert trainer.step(batch_of([0])) == pytest.approx(1 + 0.25 * 2 * 24**0.5)
    gradients = trainer.gradients()
    np.testing.assert_allclose(gradients[LORA_A], [[0] * 4, [0.25 * 24**0.5 / 2] * 4], rtol=1e-6)
    np.testing.assert_allclose(gradients[LORA_B], [[0, 0.25 * 2 / 24**0.5 * 2]] * 6, rtol=1e-6)
    assert trainer.evaluate(batch_of([0])).loss == 0


def test_penalty_leaves_the_factor_alone_that_is_not_trained() -> None:
    settings = DESCENT.model_copy(update={"pruning_decay": 0.5, "pruning_penalty": 0.25})
    how = Parametrisation(Adaptation(trained="lora_B"))
    trainer = Trainer(QuadraticRuntime(), adapter_of(2), MANIFEST, settings, how)
    trainer.step(batch_of([0]))
    assert trainer.gradients().keys() == {LORA_B}
    assert (trainer.adapter().factors["query"].lora_A == 0.5).all()


def test_loss_that_is_not_finite_leaves_the_adapter_and_counts_as_no_step() -> None:
    trainer = Trainer(Telling(float("inf"), slope=float("inf")), adapter_of(2), MANIFEST, DESCENT)
    with pytest.raises(TrainingDiverged, match="loss of step 1 of 10; got inf"):
        trainer.step(batch_of([0]))
    assert (lora_b_of(trainer.adapter()) == 0.25).all()
    assert trainer.steps_done == 0


def test_evaluation_of_parts_is_that_of_the_whole() -> None:
    trainer = Trainer(QuadraticRuntime(), adapter_of(2), MANIFEST, DESCENT, micro_batch=2)
    scored = trainer.evaluate(batch_of([0, 1, 1]))
    assert scored.logits is not None
    assert scored.logits.tolist() == [[0.25, 0]] * 3


def test_adapter_that_does_not_fit_is_refused() -> None:
    other = Adapter(SPEC, {"query": LoraFactors(np.zeros((0, 4)), np.zeros((6, 0)))})
    with pytest.raises(RankOutOfRange, match="nothing to train at rank 0"):
        Trainer(QuadraticRuntime(), other, MANIFEST, DESCENT)
    with pytest.raises(SettingsError, match="rows of a micro-batch; got 0"):
        Trainer(QuadraticRuntime(), adapter_of(1), MANIFEST, DESCENT, micro_batch=0)


def test_trainer_leaves_the_adapter_that_it_was_given_alone() -> None:
    begun = adapter_of(2)
    trainer = Trainer(QuadraticRuntime(), begun, MANIFEST, DESCENT)
    before = trainer.adapter()
    trainer.step(batch_of([0]))
    expected = to_tensors(adapter_of(2))
    for adapter in (begun, before):
        assert all((tensor == expected[key]).all() for key, tensor in to_tensors(adapter).items())


def test_state_in_place_is_what_is_trained_and_no_copy_of_it() -> None:
    trainer = Trainer(QuadraticRuntime(), adapter_of(2), MANIFEST, DESCENT)
    held = trainer.state_in_place()["trained/" + LORA_B]
    before = held.tolist()
    trainer.step(batch_of([0, 1]))
    assert before != held.tolist() == lora_b_of(trainer.adapter()).tolist()
