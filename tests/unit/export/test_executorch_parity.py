"""ExecuTorch against PyTorch and PEFT: one program for several ranks and sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from executorch_families import EXECUTORCH_LAYERS
from parity import (
    DECAY,
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    MAX_TOKENS,
    PENALTY,
    batch_for,
    check_first_step,
    check_training,
    open_trainer,
    trained_adapter,
)
from peft_twin import PeftTwin

from edge_sdk.runtimes.executorch import ExecutorchModel, ExecutorchRuntime, programs_of
from edge_sdk.runtimes.executorch_library import Program
from edge_sdk.runtimes.factors import fed_factors
from edge_sdk.runtimes.signature import training_signature
from hetlora.bundle import Bundle
from hetlora.graph_names import PRUNING_DECAY, PRUNING_PENALTY
from hetlora.tensors import to_tensors

pytestmark = pytest.mark.slow  # lowering a model takes half a minute

Case = tuple[Path, Bundle]

LOGITS_TOLERANCE = 1e-4  # float32, with sums in another order; logits reach 20
# Rows and tokens; the last is the most that the programs take.
SIZES = ((1, 3), (8, MAX_TOKENS))


@pytest.fixture(scope="module", params=EXECUTORCH_LAYERS)
def case(request: pytest.FixtureRequest, executorch_case: Callable[[str], Case]) -> Case:
    return executorch_case(request.param)


def test_family_trains_as_torch_and_peft_do(case: Case, tmp_path: Path) -> None:
    model, bundle = case
    batch, adapter = batch_for(bundle), trained_adapter(bundle.manifest.adapter)
    twin = PeftTwin(bundle, model, adapter, tmp_path)
    check_training(open_trainer(bundle, adapter, ExecutorchRuntime), batch, twin)


@pytest.mark.parametrize("ranks", [(1,), (4,), (2, 3)])
@pytest.mark.parametrize(("rows", "tokens"), SIZES)
def test_first_step_is_that_of_torch_at_every_rank_and_size(
    case: Case, ranks: tuple[int, ...], rows: int, tokens: int, tmp_path: Path
) -> None:
    model, bundle = case
    adapter = trained_adapter(bundle.manifest.adapter, ranks)
    batch = batch_for(bundle, rows=rows, tokens=tokens)
    trainer = open_trainer(bundle, adapter, ExecutorchRuntime)
    check_first_step(trainer, batch, PeftTwin(bundle, model, adapter, tmp_path))


def test_penalty_of_the_program_itself_is_that_of_torch(case: Case, tmp_path: Path) -> None:
    model, bundle = case
    batch, adapter = batch_for(bundle), trained_adapter(bundle.manifest.adapter)
    files = programs_of(bundle.manifest)
    signature = {
        key: (dtype, tuple(map(str, sizes)))
        for key, (dtype, sizes) in training_signature(bundle.manifest).items()
    }
    program = Program(
        bundle.path(files.training), bundle.path(files.base_weights), inputs=signature, threads=1
    )
    fed = {
        **batch,
        PRUNING_DECAY: np.array(DECAY, np.float64),
        PRUNING_PENALTY: np.array(PENALTY, np.float32),
        **fed_factors(to_tensors(adapter)),
    }
    loss, *gradients = program.run([fed[key] for key in signature])
    twin = PeftTwin(bundle, model, adapter, tmp_path)
    expected = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY)
    expected.backward()
    assert abs(float(loss) - expected.item()) <= LOSS_TOLERANCE
    for key, gradient in zip(fed_factors(to_tensors(adapter)), gradients, strict=True):
        wanted = twin.factors[key].grad
        assert wanted is not None
        assert np.abs(gradient - wanted.numpy()).max() <= GRADIENT_TOLERANCE * np.abs(wanted.numpy()).max(), (
            key
        )


def test_logits_are_those_of_torch_under_adapters_that_are_swapped(case: Case, tmp_path: Path) -> None:
    model, bundle = case
    opened, batch = ExecutorchModel(bundle, threads=1), batch_for(bundle)
    answers = []
    for place, ranks in enumerate([(1,), (4, 0, 3)]):
        adapter = trained_adapter(bundle.manifest.adapter, ranks)
        answers.append(opened.logits(batch, adapter=adapter))
        twin = PeftTwin(bundle, model, adapter, tmp_path / str(place))
        with torch.no_grad():
            expected = twin.logits(batch).numpy()
        assert np.abs(answers[-1] - expected).max() <= LOGITS_TOLERANCE
    assert np.abs(answers[0] - answers[1]).max() > 100 * LOGITS_TOLERANCE


def test_batch_beyond_the_programs_goes_through_in_parts(case: Case, tmp_path: Path) -> None:
    model, bundle = case
    batch = batch_for(bundle, rows=19, tokens=7)  # in parts of 8, 8 and 3, with unlike numbers of labels
    adapter = trained_adapter(bundle.manifest.adapter)
    trainer = open_trainer(bundle, adapter, ExecutorchRuntime)
    check_first_step(trainer, batch, PeftTwin(bundle, model, adapter, tmp_path))
    assert trainer.evaluate(batch).loss < np.inf


def test_all_is_run_by_xnnpack(case: Case) -> None:
    programs = case[1].manifest.executorch
    assert programs is not None
    assert programs.portable == ()
