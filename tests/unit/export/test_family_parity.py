"""Every family that is listed as tested, against PyTorch and PEFT: training, evaluation and inference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto
from parity import batch_for, check_training, export_family, open_graphs, open_trainer, trained_adapter
from peft_twin import PeftTwin
from plain_sessions import run_gradients
from tiny_families import TINY_FAMILIES, write_tiny_family
from trainers import trainer_of

from edge_sdk.runtimes.onnx import OnnxModel
from edge_sdk.runtimes.pytorch import PytorchRuntime
from export.graphs.graph_edit import subgraphs
from hetlora.bundle import Bundle
from hetlora.graph_names import DECODER_INPUT_IDS, LABELS
from hetlora.tensors import to_tensors

LOGITS_TOLERANCE = 1e-4  # float32, with sums in another order; logits reach 20
LOSS_TOLERANCE = 2e-5
# The same kernels in the same order, but for a classifier's head, which is written as the graphs have it.
SAME_LOSS_TOLERANCE = 5e-6
PLAIN_GRADIENT_TOLERANCE = 1e-4  # relative, as below; other kernels than torch's, in another order
SAME_GRADIENT_TOLERANCE = 1e-5  # relative to the largest entry of the same tensor


@dataclass(frozen=True, slots=True)
class Case:
    model: Path
    bundle: Bundle


@pytest.fixture(scope="module", params=TINY_FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    model = write_tiny_family(root / "model", request.param)
    bundle = export_family(request.param, model, root / "bundle", runtimes=("pytorch", "web"))
    return Case(model, bundle)


def test_family_trains_as_torch_and_peft_do(case: Case, tmp_path: Path) -> None:
    batch, adapter = batch_for(case.bundle), trained_adapter(case.bundle.manifest.adapter)
    twin = PeftTwin(case.bundle, case.model, adapter, tmp_path)
    check_training(open_trainer(case.bundle, adapter), batch, twin)


def test_familys_own_graphs_train_as_torch_and_peft_do(case: Case, tmp_path: Path) -> None:
    batch, adapter = batch_for(case.bundle), trained_adapter(case.bundle.manifest.adapter)
    twin = PeftTwin(case.bundle, case.model, adapter, tmp_path)
    check_training(open_graphs(case.bundle, adapter), batch, twin)


def test_family_is_evaluated_as_torch_and_peft_do(case: Case, tmp_path: Path) -> None:
    batch, adapter = batch_for(case.bundle), trained_adapter(case.bundle.manifest.adapter)
    trainer = trainer_of(case.bundle, adapter)
    twin = PeftTwin(case.bundle, case.model, adapter, tmp_path)
    evaluation = trainer.evaluate(batch)
    assert abs(evaluation.loss - twin.loss(batch).item()) <= LOSS_TOLERANCE
    if evaluation.logits is not None:
        assert np.abs(evaluation.logits - twin.logits(batch).detach().numpy()).max() <= LOGITS_TOLERANCE


def test_family_infers_as_torch_and_peft_do(case: Case, tmp_path: Path) -> None:
    batch, adapter = dict(batch_for(case.bundle)), trained_adapter(case.bundle.manifest.adapter)
    twin = PeftTwin(case.bundle, case.model, adapter, tmp_path)
    expected = twin.logits(batch).detach().numpy()
    generation = case.bundle.manifest.generation
    if generation is not None and generation.decoder_start_token_id is not None:
        # What the decoder has read before each label; an ignored one is padding, 0, to T5.
        read = np.roll(np.maximum(batch[LABELS], 0), 1, axis=1)
        read[:, 0] = generation.decoder_start_token_id
        batch[DECODER_INPUT_IDS] = read
    assert (
        np.abs(OnnxModel(case.bundle, to_tensors(adapter)).logits(batch) - expected).max() <= LOGITS_TOLERANCE
    )


def test_family_has_the_gradients_of_torch_and_peft_when_built_from_its_bundle(
    case: Case, tmp_path: Path
) -> None:
    batch, adapter = batch_for(case.bundle), trained_adapter(case.bundle.manifest.adapter)
    twin = PeftTwin(case.bundle, case.model, adapter, tmp_path)
    expected = twin.loss(batch)
    expected.backward()
    runtime = PytorchRuntime(case.bundle, adapter.ranks, threads=1)
    loss, gradients = runtime.gradients(batch, to_tensors(adapter))
    assert abs(loss - expected.item()) <= SAME_LOSS_TOLERANCE
    assert gradients.keys() == twin.factors.keys()
    for key, gradient in gradients.items():
        wanted = twin.factors[key].grad
        assert wanted is not None
        largest = np.abs(wanted.numpy()).max()
        assert np.abs(gradient - wanted.numpy()).max() <= SAME_GRADIENT_TOLERANCE * largest, key


@pytest.mark.parametrize("rank", [3, 8])
def test_one_bundle_trains_at_every_rank_as_torch_and_peft_do(
    rank: int, tiny_bundle: Bundle, tiny_model_folder: Path, tmp_path: Path
) -> None:
    batch, adapter = batch_for(tiny_bundle), trained_adapter(tiny_bundle.manifest.adapter, (rank,))
    twin = PeftTwin(tiny_bundle, tiny_model_folder, adapter, tmp_path)
    check_training(open_trainer(tiny_bundle, adapter), batch, twin)


# Of ONNX Runtime's own operators those that its plain build has too: ContribOperators.md of version 1.20.
PLAIN = {"FusedMatMul", "Gelu", "QuickGelu", "FastGelu", "BiasGelu"}


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from all_nodes(graph.node)


@pytest.mark.parametrize("name", ["eval.onnx", "inference.onnx", "gradients.onnx"])
def test_graphs_of_ordinary_sessions_need_no_training_build(case: Case, name: str) -> None:
    graph = onnx.load(case.bundle.path(name), load_external_data=False).graph
    nodes = list(all_nodes(graph.node))
    assert {node.op_type for node in nodes if node.domain} <= PLAIN
    standard = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    # ONNX Runtime has it in ONNX's domain, in every build.
    assert {node.op_type for node in nodes if not node.domain} <= standard | {"SimplifiedLayerNormalization"}


def test_phones_and_pages_have_the_gradients_of_torch_and_peft(case: Case, tmp_path: Path) -> None:
    batch, adapter = batch_for(case.bundle), trained_adapter(case.bundle.manifest.adapter)
    twin = PeftTwin(case.bundle, case.model, adapter, tmp_path)
    expected = twin.loss(batch)
    expected.backward()
    answers = run_gradients(case.bundle, batch, adapter)
    assert abs(answers.pop("loss") - expected.item()) <= LOSS_TOLERANCE
    assert answers.keys() == {f"{key}_grad" for key in twin.factors}
    for key, factor in twin.factors.items():
        assert factor.grad is not None
        wanted = factor.grad.numpy()
        difference = np.abs(answers[f"{key}_grad"] - wanted).max()
        assert difference <= PLAIN_GRADIENT_TOLERANCE * np.abs(wanted).max(), key
