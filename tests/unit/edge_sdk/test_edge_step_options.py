"""What a run may ask of steps, beside PyTorch and in numbers that can be checked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fake_bundle import adapter_of, lora_b_of, tiny_files, tiny_manifest
from fake_runtime import QuadraticRuntime, Telling
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from edge_sdk.runtimes.base import Batch
from edge_sdk.training.gradient_terms import clip_norm
from edge_sdk.training.schedule import learning_rate_at
from edge_sdk.training.trainer import Trainer
from hetlora.errors import TrainingDiverged
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import factor_keys, to_tensors

MANIFEST = tiny_manifest(tiny_files())
LORA_A, LORA_B = factor_keys("query")
BATCH: Batch = {"labels": np.array([0])}


def trainer_of(runtime: QuadraticRuntime | None = None, *, rank: int = 2, **settings: Any) -> Trainer:
    usual = {"learning_rate": 0.5, "optimizer": "sgd", "pruning_penalty": 0}
    return Trainer(
        runtime or QuadraticRuntime(), adapter_of(rank), MANIFEST, TrainingSettings(**(usual | settings))
    )


def test_rate_rises_in_equal_parts_and_falls_to_what_would_be_0_after_the_last_step() -> None:
    linear = TrainingSettings(steps=6, learning_rate=1.0, schedule="linear", warm_up_steps=2)
    rates = [learning_rate_at(linear, number) for number in range(1, 7)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4])
    cosine = TrainingSettings(steps=4, learning_rate=2.0, schedule="cosine")
    half = 2**-0.5  # of a quarter of the way
    rates = [learning_rate_at(cosine, number) for number in range(1, 5)]
    assert rates == pytest.approx([2, 1 + half, 1, 1 - half])


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, int], lr_scheduler.LRScheduler]] = {
    "constant": lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    "linear": lambda optimizer, steps: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps),
    "cosine": lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps),
}


@pytest.mark.parametrize("warm_up", [0, 5])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_are_those_of_torch(schedule: Any, warm_up: int) -> None:
    steps, rate = 20, 0.3
    settings = TrainingSettings(
        steps=steps, learning_rate=rate, schedule=schedule, warm_up_steps=warm_up, optimizer="sgd"
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    theirs = SCHEDULES[schedule](optimizer, steps - warm_up)
    if warm_up:
        rising = lr_scheduler.LinearLR(optimizer, 1 / (warm_up + 1), 1.0, total_iters=warm_up)
        theirs = lr_scheduler.SequentialLR(optimizer, [rising, theirs], [warm_up])
    for number in range(1, steps + 1):
        assert learning_rate_at(settings, number) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-7)
        optimizer.step()
        if number < steps:
            theirs.step()


def test_gradients_are_scaled_down_to_the_norm_and_never_up() -> None:
    gradients = np.array([3, 4], np.float32)
    assert clip_norm(gradients, 10) == 5
    assert gradients.tolist() == [3, 4]
    assert clip_norm(gradients, 1) == 5
    np.testing.assert_allclose(gradients, [0.6, 0.8], rtol=1e-6)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 2**32 - 1), st.integers(1, 40_000), st.floats(0.01, 100))
def test_clipping_is_that_of_torch(seed: int, size: int, max_norm: float) -> None:
    ours = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    twin = torch.zeros(size, requires_grad=True)
    twin.grad = torch.from_numpy(ours.copy())
    norm = torch.nn.utils.clip_grad_norm_([twin], max_norm)
    assert clip_norm(ours, max_norm) == pytest.approx(norm.item(), rel=1e-4)
    np.testing.assert_allclose(ours, twin.grad.numpy(), rtol=1e-4)


def test_proximal_term_pulls_back_to_what_was_received_and_is_in_the_loss() -> None:
    trainer = trainer_of(rank=1, proximal=2.0)
    # lora_B is six times 0.25. Slope -0.75; then 0.625 - 1 + 2 (0.625 - 0.25).
    assert trainer.step(BATCH) == 6 * 0.75**2 / 2
    assert trainer.step(BATCH) == 6 * (0.375**2 / 2 + 2 * 0.375**2 / 2)
    np.testing.assert_array_equal(
        lora_b_of(trainer.adapter()), np.full((6, 1), 0.625 - 0.5 * (-0.375 + 2 * 0.375))
    )


def test_proximal_term_holds_to_what_was_received_also_after_an_interruption() -> None:
    trainer, other = trainer_of(proximal=2.0), trainer_of(proximal=2.0)
    trainer.step(BATCH)
    other.restore(trainer.state_in_place())
    assert other.step(BATCH) == trainer.step(BATCH)
    assert (lora_b_of(other.adapter()) == lora_b_of(trainer.adapter())).all()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_all_of_it_together_is_what_torch_makes_of_it(optimizer: Any) -> None:
    steps, rate = 12, 0.05
    settings = {
        "steps": steps,
        "learning_rate": rate,
        "optimizer": optimizer,
        "momentum": 0.9 if optimizer == "sgd" else 0.0,
        "schedule": "cosine",
        "warm_up_steps": 3,
        "max_gradient_norm": 0.7,
        "proximal": 1.5,
    }
    trainer = trainer_of(**settings)
    begun = {key: torch.from_numpy(own.copy()) for key, own in to_tensors(adapter_of(2)).items()}
    twin = {key: own.clone().requires_grad_() for key, own in begun.items()}
    theirs = (
        torch.optim.AdamW(twin.values(), lr=rate, weight_decay=0.0)
        if optimizer == "adamw"
        else torch.optim.SGD(twin.values(), lr=rate, momentum=0.9)
    )
    for number in range(1, steps + 1):
        theirs.zero_grad()
        loss = ((twin[LORA_B] - 1) ** 2).sum() / 2
        loss = loss + sum(1.5 / 2 * ((twin[key] - begun[key]) ** 2).sum() for key in twin)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(twin.values()), 0.7)
        theirs.param_groups[0]["lr"] = learning_rate_at(TrainingSettings(**settings), number)
        theirs.step()
        assert trainer.step(BATCH) == pytest.approx(loss.item(), rel=1e-5)
    for key, own in to_tensors(trainer.adapter()).items():
        np.testing.assert_allclose(own, twin[key].detach().numpy(), rtol=1e-5, atol=1e-6)


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(["adamw", "sgd"]), st.floats(0.01, 1))
def test_options_that_change_nothing_give_the_plain_steps(optimizer: str, rate: float) -> None:
    plain = trainer_of(optimizer=optimizer, learning_rate=rate)
    idle = trainer_of(
        optimizer=optimizer, learning_rate=rate, max_gradient_norm=1e6, divergence_factor=1e6, proximal=0.0
    )
    for _ in range(3):
        assert plain.step(BATCH) == idle.step(BATCH)
    assert (lora_b_of(plain.adapter()) == lora_b_of(idle.adapter())).all()


def test_gradients_whose_norm_is_no_number_are_not_stepped_by() -> None:
    trainer = trainer_of(Telling(1.0, slope=float("nan")), max_gradient_norm=1.0)
    with pytest.raises(TrainingDiverged, match="norm of the gradients; got nan"):
        trainer.step(BATCH)
    assert (lora_b_of(trainer.adapter()) == 0.25).all()


def test_training_ends_once_the_loss_is_high_so_many_steps_running() -> None:
    trainer = trainer_of(Telling(1, 3, 3, 2, 3, 3, 3), steps=9, divergence_factor=2, divergence_steps=3)
    for _ in range(6):
        trainer.step(BATCH)
    with pytest.raises(
        TrainingDiverged, match="loss of 3 steps running, up to step 7 of 9; got 3; expected up to 2"
    ):
        trainer.step(BATCH)


def test_high_losses_before_an_interruption_count() -> None:
    before = trainer_of(Telling(1, 3, 3), divergence_factor=2)
    for _ in range(3):
        before.step(BATCH)
    after = trainer_of(Telling(3), divergence_factor=2)
    after.restore(before.state_in_place())
    with pytest.raises(TrainingDiverged, match="loss of 3 steps running"):
        after.step(BATCH)


def test_first_loss_of_0_is_no_measure() -> None:
    trainer = trainer_of(Telling(0, 1, 1, 1), divergence_factor=2, divergence_steps=1)
    assert [trainer.step(BATCH) for _ in range(4)] == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"momentum": 0.9},
        {"momentum": 1.0, "optimizer": "sgd"},
        {"optimizer": "lion"},
        {"schedule": "step"},
        {"steps": 5, "warm_up_steps": 5},
        {"max_gradient_norm": 0.0},
        {"max_gradient_norm": float("nan")},
        {"proximal": -1.0},
        {"divergence_factor": 1.0},
        {"divergence_steps": 2},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        TrainingSettings(**wrong)


def test_options_are_left_out_of_messages_at_their_defaults() -> None:
    options = {"optimizer", "momentum", "schedule", "warm_up_steps", "max_gradient_norm"}
    options |= {"proximal", "divergence_factor", "divergence_steps"}
    assert not options & TrainingSettings().model_dump().keys()
    asked = TrainingSettings(optimizer="sgd", momentum=0.5, schedule="cosine", proximal=0.1)
    assert options & asked.model_dump().keys() == {"optimizer", "momentum", "schedule", "proximal"}
    assert TrainingSettings.model_validate_json(asked.model_dump_json()) == asked
