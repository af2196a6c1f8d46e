"""What a plan's adaptation asks of training, beside PyTorch and PEFT: twenty AdamW steps on one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import (
    DECAY,
    FACTOR_TOLERANCE,
    GRADIENT_TOLERANCE,
    LEARNING_RATE,
    LOSS_TOLERANCE,
    PENALTY,
    STEPS,
    batch_for,
    open_graphs,
    open_trainer,
    trained_adapter,
)
from peft.tuners.lora import LoraLayer
from peft_twin import PeftTwin
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from trainers import trainer_of

from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.runtimes.executorch import ExecutorchRuntime
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.training.trainer import Trainer
from export.stamping import stamp
from hetlora.adapter import Adapter, LoraFactors
from hetlora.bundle import Bundle
from hetlora.errors import RankOutOfRange, SpecMismatch, TrainingDiverged
from hetlora.messages.device import Adaptation
from hetlora.partial_tensors import core_key
from hetlora.plan_adapter import FrozenFactors
from hetlora.tensors import to_tensors

MODEL_PREFIX = "base_model.model."
RANKS = (2, 1)


@dataclass
class Case:
    """A parametrisation, and what stands for it in PyTorch: the tensors that are stepped, by key."""

    how: Parametrisation
    stepped: dict[str, Tensor]
    penalty: float = PENALTY
    rates: dict[str, float] = field(default_factory=dict)


def layers(twin: PeftTwin) -> dict[str, LoraLayer]:
    """PEFT's layers by module name."""
    found = {
        name.removeprefix(MODEL_PREFIX): layer
        for name, layer in twin.wrapped.named_modules()
        if isinstance(layer, LoraLayer)
    }
    assert found
    return found


def frozen_of(adapter: Adapter, ranks: tuple[int, ...]) -> FrozenFactors:
    rng = np.random.default_rng(7)
    return {
        module.name: LoraFactors(
            0.2 * rng.standard_normal((ranks[place % len(ranks)], module.in_features)),
            0.2 * rng.standard_normal((module.out_features, ranks[place % len(ranks)])),
        )
        for place, module in enumerate(adapter.spec.modules)
    }


def one_factor(name: str) -> Callable[[PeftTwin, Adapter], Case]:
    def made(twin: PeftTwin, adapter: Adapter) -> Case:
        for key, parameter in twin.factors.items():
            parameter.requires_grad_(name in key)
        how = Parametrisation(Adaptation(trained=name))  # type: ignore[arg-type]
        return Case(how, {key: tensor for key, tensor in twin.factors.items() if name in key})

    return made


def faster_lora_b(twin: PeftTwin, adapter: Adapter) -> Case:
    how = Parametrisation(Adaptation(lora_B_rate=5.0))
    return Case(how, twin.factors, rates={key: 5.0 for key in twin.factors if "lora_B" in key})


def amplified(twin: PeftTwin, adapter: Adapter) -> Case:
    for layer in layers(twin).values():
        layer.scaling["default"] *= 2.5
    return Case(Parametrisation(Adaptation(amplification=2.5)), twin.factors)


def beside_frozen(twin: PeftTwin, adapter: Adapter) -> Case:
    frozen = frozen_of(adapter, (2, 0, 1))
    for name, layer in layers(twin).items():
        delta = adapter.spec.scaling * frozen[name].lora_B @ frozen[name].lora_A
        layer.get_base_layer().weight.data += torch.from_numpy(delta)
    return Case(Parametrisation(frozen=frozen), twin.factors)


class Core(nn.Module):
    """A weight B that is seen as B R."""

    def __init__(self, core: Tensor) -> None:
        super().__init__()
        self.core = nn.Parameter(core)

    def forward(self, weight: Tensor) -> Tensor:
        return weight @ self.core


def core_between(twin: PeftTwin, adapter: Adapter) -> Case:
    rng = np.random.default_rng(8)
    cores = {
        name: rng.standard_normal((rank, rank)).astype(np.float32) for name, rank in adapter.ranks.items()
    }
    stepped = {}
    for name, layer in layers(twin).items():
        core = Core(torch.from_numpy(cores[name].copy()))
        register_parametrization(layer.lora_B["default"], "weight", core)
        stepped[core_key(name)] = core.core
    return Case(Parametrisation(Adaptation(trained="core"), cores=cores), stepped, penalty=0.0)


def open_at(bundle: Bundle, adapter: Adapter, runtime: RuntimeFactory, how: Parametrisation) -> Trainer:
    """At LEARNING_RATE, with the penalty pressing on the tails."""
    return trainer_of(
        bundle,
        adapter,
        runtime=runtime,
        parametrisation=how,
        pruning_decay=DECAY,
        pruning_penalty=PENALTY,
        learning_rate=LEARNING_RATE,
    )


KINDS: dict[str, Callable[[PeftTwin, Adapter], Case]] = {
    "lora_A alone": one_factor("lora_A"),
    "lora_B alone": one_factor("lora_B"),
    "lora_B faster": faster_lora_b,
    "amplified": amplified,
    "beside frozen": beside_frozen,
    "core": core_between,
}


@pytest.fixture(
    params=[OnnxRuntime, pytest.param(ExecutorchRuntime, marks=pytest.mark.slow)], ids=["onnx", "executorch"]
)
def runtime(request: pytest.FixtureRequest) -> RuntimeFactory:
    kind: RuntimeFactory = request.param
    return kind


@pytest.fixture
def model(runtime: RuntimeFactory, request: pytest.FixtureRequest) -> tuple[Path, Bundle]:
    if runtime is OnnxRuntime:
        return request.getfixturevalue("tiny_model_folder"), request.getfixturevalue("tiny_bundle")
    folder, bundle = request.getfixturevalue("executorch_case")("bert")
    return folder, bundle


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_that_of_torch(
    kind: str, runtime: RuntimeFactory, model: tuple[Path, Bundle], tmp_path: Path
) -> None:
    folder, bundle = model
    adapter, batch = trained_adapter(bundle.manifest.adapter, RANKS), batch_for(bundle)
    twin = PeftTwin(bundle, folder, adapter, tmp_path)
    case = KINDS[kind](twin, adapter)
    opened = open_at(bundle, adapter, runtime, case.how)
    groups = [
        {"params": [tensor], "lr": LEARNING_RATE * case.rates.get(key, 1.0)}
        for key, tensor in case.stepped.items()
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        expected = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=case.penalty)
        expected.backward()
        losses.append(opened.step(batch))
        if step == 0:
            assert abs(losses[0] - expected.item()) <= LOSS_TOLERANCE
            check_gradients(opened, case.stepped)
        optimizer.step()
    assert losses[-1] < losses[0]
    after = to_tensors(opened.adapter()) | {core_key(name): core for name, core in opened.cores().items()}
    for key, tensor in case.stepped.items():
        tolerance = FACTOR_TOLERANCE * case.rates.get(key, 1.0)
        assert np.abs(after[key] - tensor.detach().numpy()).max() <= tolerance, key
    for key, given in to_tensors(adapter).items():
        assert (after[key] == given).all() == (key not in case.stepped), key


def check_gradients(opened: Trainer, stepped: dict[str, Tensor]) -> None:
    gradients = opened.gradients()
    assert gradients.keys() == stepped.keys()
    for key, gradient in gradients.items():
        wanted = stepped[key].grad
        assert wanted is not None
        largest = np.abs(wanted.numpy()).max()
        assert largest > 0, key
        assert np.abs(gradient - wanted.numpy()).max() <= GRADIENT_TOLERANCE * largest, key


def test_steps_taken_on_the_host_are_those_of_the_graphs(tiny_bundle: Bundle) -> None:
    adapter, batch = trained_adapter(tiny_bundle.manifest.adapter, (3, 0, 1)), batch_for(tiny_bundle)
    ours, theirs = open_trainer(tiny_bundle, adapter), open_graphs(tiny_bundle, adapter)
    for _ in range(STEPS):
        assert ours.step(batch) == pytest.approx(theirs.step(batch), abs=LOSS_TOLERANCE)
    expected = to_tensors(theirs.adapter())
    for key, tensor in to_tensors(ours.adapter()).items():
        assert np.abs(tensor - expected[key]).max(initial=0) <= FACTOR_TOLERANCE, key


def test_evaluation_sees_the_frozen_adapter_and_the_core(
    runtime: RuntimeFactory, model: tuple[Path, Bundle]
) -> None:
    bundle = model[1]
    adapter, batch = trained_adapter(bundle.manifest.adapter, (2,)), batch_for(bundle)
    twice = {name: 2 * np.eye(2, dtype=np.float32) for name in adapter.factors}
    doubled = Parametrisation(Adaptation(trained="core"), cores=twice)
    beside_itself = Parametrisation(frozen=adapter.factors)  # B A + B A = B (2 I) A
    losses = []
    for how in (doubled, beside_itself, None):
        opened = trainer_of(bundle, adapter, runtime=runtime, parametrisation=how)
        losses.append(opened.evaluate(batch).loss)
        assert opened.step(batch) == pytest.approx(losses[-1], abs=LOSS_TOLERANCE)
    assert losses[0] == pytest.approx(losses[1], abs=LOSS_TOLERANCE)
    assert abs(losses[2] - losses[0]) > 10 * LOSS_TOLERANCE


def test_loss_that_is_not_finite_leaves_what_is_trained(
    runtime: RuntimeFactory, model: tuple[Path, Bundle]
) -> None:
    bundle = model[1]
    given = trained_adapter(bundle.manifest.adapter, (2,))
    how = Parametrisation(Adaptation(trained="lora_B", amplification=1e38))
    opened = open_at(bundle, given, runtime, how)
    with pytest.raises(TrainingDiverged):
        opened.step(batch_for(bundle))
    for module, factors in opened.adapter():
        assert (factors.lora_B == given.factors[module.name].lora_B).all()


def test_core_of_another_rank_is_refused(tiny_bundle: Bundle) -> None:
    adapter = trained_adapter(tiny_bundle.manifest.adapter, (2,))
    cores = {name: np.eye(3, dtype=np.float32) for name in adapter.factors}
    how = Parametrisation(Adaptation(trained="core"), cores=cores)
    with pytest.raises(SpecMismatch, match=r"core of module .*; got \(3, 3\); expected \(2, 2\)"):
        trainer_of(tiny_bundle, adapter, parametrisation=how)


def test_frozen_factors_pass_the_largest_rank_on_onnx_runtime(tiny_bundle: Bundle) -> None:
    adapter, batch = trained_adapter(tiny_bundle.manifest.adapter, (2,)), batch_for(tiny_bundle)
    how = Parametrisation(frozen=frozen_of(adapter, (40,)))  # above max_rank 8 and the 32 features
    opened = trainer_of(tiny_bundle, adapter, parametrisation=how)
    losses = [opened.step(batch) for _ in range(5)]
    assert losses[-1] < losses[0]


def test_frozen_factors_that_the_programs_have_no_room_for_are_refused(tiny_bundle: Bundle) -> None:
    adapter = trained_adapter(tiny_bundle.manifest.adapter, (2,))
    how = Parametrisation(frozen=frozen_of(adapter, (7,)))
    with pytest.raises(RankOutOfRange, match=r"with frozen ones, .*; got 9; expected up to 8"):
        trainer_of(tiny_bundle, adapter, runtime=ExecutorchRuntime, parametrisation=how)


def test_stamped_bundle_trains_one_factor_and_refuses_a_frozen_adapter(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    stamped = stamp(tiny_bundle, tmp_path / "stamped", rank=2)
    adapter, batch = trained_adapter(tiny_bundle.manifest.adapter, (2, 0)), batch_for(tiny_bundle)
    half = Parametrisation(Adaptation(trained="lora_B"))
    opened, symbolic = (open_at(bundle, adapter, OnnxRuntime, half) for bundle in (stamped, tiny_bundle))
    for _ in range(3):
        loss = opened.step(batch)
        assert loss == pytest.approx(symbolic.step(batch), abs=1e-5)
    frozen = Parametrisation(frozen=frozen_of(adapter, (1,)))
    with pytest.raises(RankOutOfRange, match=r"frozen ones counted in; got \[1, 3\]; expected 2, or 0"):
        trainer_of(stamped, adapter, parametrisation=frozen)
