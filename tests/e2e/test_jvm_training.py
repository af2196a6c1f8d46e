"""The Kotlin client trains a bundle on a Java machine as Python does: on the same kernels to the same bits.

On the runtime of the Python package, over the same graph, Kotlin's numbers are Python's bit by bit. On what
is published for desktop Java, an older version with other kernels, losses are near Python's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kotlin_client import class_path
from numpy.typing import NDArray
from parity import batch_for, export_family
from tiny_families import write_tiny_family

from benchmarks.clients.gradient_graph import GradientGraph
from benchmarks.clients.jvm import KILLED, Jvm, answer_in, told_by
from benchmarks.clients.jvm import write_case as write_jvm_case
from edge_sdk.runtimes.onnx import OnnxModel, OnnxRuntime
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, LoraFactors
from hetlora.bundle import Bundle
from hetlora.errors import HetloraError
from hetlora.manifest import has_decoder
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import to_tensors

STEPS = 20
RANKS = (3, 1, 2, 0)  # go round over the modules
KILLED_AFTER = 7
# Losses of twenty steps under kernels of another version; several times what was seen.
LOSS_TOLERANCE = 2e-5
SETTINGS = TrainingSettings(
    steps=STEPS,
    learning_rate=1e-2,
    warm_up_steps=2,
    schedule="cosine",
    pruning_decay=0.7,
    pruning_penalty=1e-2,
    proximal=0.1,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Builds:
    """The client on two builds of ONNX Runtime."""

    upstream: Jvm
    training: Jvm


@pytest.fixture(scope="module")
def jvm() -> Builds:
    path, flags = class_path("trainer-ort"), ("-Xmx512m", "-XX:TieredStopAtLevel=1")
    return Builds(*(Jvm(path, Path(native), flags) for native in told_by("onnxruntime_java.py")))


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    def exported(name: str, **choices: object) -> Bundle:
        root = tmp_path_factory.mktemp(name)
        model = write_tiny_family(root / "model", name)
        return export_family(name, model, root / "bundle", runtimes=("onnx", "android"), **choices)

    return exported


def adapter_for(bundle: Bundle) -> Adapter:
    rng = np.random.default_rng(3)
    spec = bundle.manifest.adapter
    return Adapter(
        spec,
        {
            module.name: LoraFactors(
                0.3 * rng.standard_normal((rank, module.in_features)),
                0.3 * rng.standard_normal((module.out_features, rank)),
            )
            for place, module in enumerate(spec.modules)
            for rank in [RANKS[place % len(RANKS)]]
        },
    )


def batches_for(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    """Two batches of unlike sizes, in turn."""
    return [dict(batch_for(bundle)), dict(batch_for(bundle, rows=4, tokens=7))]


def write_case(folder: Path, bundle: Bundle, adapter: Adapter, **changes: object) -> None:
    write_jvm_case(folder, bundle, adapter, SETTINGS, batches_for(bundle), **changes)


def trained_in_python(trainer: Trainer, bundle: Bundle) -> list[float]:
    batches = batches_for(bundle)
    return [trainer.step(batches[step % len(batches)]) for step in range(STEPS)]


@pytest.mark.parametrize("family", ["bert", "llama", "t5", "vit"])
def test_kotlin_trains_to_the_bits_of_python_on_the_same_kernels(
    family: str, jvm: Builds, bundle_of: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of(family)
    adapter = adapter_for(bundle)
    write_case(tmp_path / "case", bundle, adapter)
    assert jvm.training.train(tmp_path / "case") == 0
    answer = answer_in(tmp_path / "case")

    trainer = Trainer(GradientGraph(bundle, 1), adapter, bundle.manifest, SETTINGS)
    losses = trained_in_python(trainer, bundle)
    after = {key: own.astype("<f4").tobytes().hex() for key, own in to_tensors(trainer.adapter()).items()}
    assert answer["factors"] == after
    # FedProx's term is summed in float32 by Python, and in float64 in Kotlin: the loss alone tells.
    np.testing.assert_allclose(answer["losses"], losses, rtol=1e-6)
    assert losses[-2] < losses[0]  # of the same batch

    scorer = Trainer(
        OnnxRuntime(bundle, adapter.ranks, threads=1), trainer.adapter(), bundle.manifest, SETTINGS
    )
    scored = scorer.evaluate(batches_for(bundle)[-1])
    assert answer["eval_loss"] == scored.loss
    logits = np.zeros(0) if scored.logits is None else scored.logits
    assert np.float32(answer["logits"]).tolist() == logits.ravel().tolist()
    if not has_decoder(bundle.manifest.task):
        model = OnnxModel(bundle, to_tensors(trainer.adapter()), threads=1)
        inferred = model.logits(batches_for(bundle)[-1])
        assert np.float32(answer["inferred"]).tolist() == inferred.ravel().tolist()


def test_kotlin_on_published_onnxruntime_has_the_losses_of_the_python_client(
    jvm: Builds, bundle_of: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of("bert")
    adapter = adapter_for(bundle)
    write_case(tmp_path / "case", bundle, adapter, micro_batch=2)
    assert jvm.upstream.train(tmp_path / "case") == 0
    runtime = OnnxRuntime(bundle, adapter.ranks, threads=1)
    trainer = Trainer(runtime, adapter, bundle.manifest, SETTINGS, micro_batch=2)
    losses = trained_in_python(trainer, bundle)
    np.testing.assert_allclose(answer_in(tmp_path / "case")["losses"], losses, rtol=LOSS_TOLERANCE)


def test_kotlin_goes_on_after_a_kill_to_the_same_bits(
    jvm: Builds, bundle_of: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of("bert")
    adapter = adapter_for(bundle)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write_case(whole, bundle, adapter)
    write_case(killed, bundle, adapter, killed_after=KILLED_AFTER)
    assert jvm.upstream.train(whole) == 0
    assert jvm.upstream.train(killed) == KILLED
    assert not (killed / "answer.json").exists()
    assert jvm.upstream.train(killed) == 0
    undisturbed, resumed = answer_in(whole), answer_in(killed)
    assert resumed["factors"] == undisturbed["factors"]
    assert resumed["losses"] == undisturbed["losses"][KILLED_AFTER:]


def test_tokens_that_the_model_does_not_know_are_refused_without_being_told(
    jvm: Builds, bundle_of: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of("bert")
    write_case(tmp_path / "case", bundle, adapter_for(bundle))
    case = json.loads((tmp_path / "case" / "case.json").read_text())
    strange = np.full((3, 11), 98765, np.int64)
    case["batches"][0]["input_ids"]["hex"] = strange.tobytes().hex()
    (tmp_path / "case" / "case.json").write_text(json.dumps(case))
    with pytest.raises(HetloraError, match="the model refuses the batch") as refused:
        jvm.upstream.train(tmp_path / "case")
    assert "98765" not in str(refused.value)
