"""The Kotlin client trains a bundle on a Java machine as Python does: on the same kernels to the same bits.

On the runtime of the Python package, over the same graph, Kotlin's numbers are Python's bit by bit. On what
is published for desktop Java, an older version with other kernels, losses are near Python's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from parity import batch_for, export_family
from tiny_families import write_tiny_family

from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.runtimes.factors import fed_factors, own_shapes
from edge_sdk.runtimes.onnx import OnnxModel, OnnxRuntime
from edge_sdk.runtimes.onnx_library import open_session
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.bundle import Bundle
from hetlora.graph_names import LOSS
from hetlora.manifest import has_decoder
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import factor_keys, to_tensors

CLIENT = Path(__file__).parents[2] / "android_demo"
STEPS = 20
RANKS = (3, 1, 2, 0)  # go round over the modules
KILLED_AFTER = 7
KILLED = 137
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


class GradientGraph:
    """The graph of gradients in an ordinary session of Python: a `TrainingRuntime`."""

    most_rows = None

    def __init__(self, bundle: Bundle, threads: int) -> None:
        assert bundle.manifest.android is not None
        self._session = open_session(bundle.path(bundle.manifest.android.gradients), threads)

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        fed = fed_factors(factors)
        names = [output.name for output in self._session.get_outputs()]
        answers = dict(zip(names, self._session.run(names, {**batch, **fed}), strict=True))
        gradients = {key: answers.get(f"{key}_grad", np.zeros_like(own)) for key, own in fed.items()}
        return float(answers[LOSS]), own_shapes(gradients, factors)

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        raise AssertionError("the eval graph is the same for all")


@dataclass(frozen=True)
class Jvm:
    """The compiled client of the tests, and its two builds of ONNX Runtime."""

    class_path: str
    upstream: Path
    training: Path

    def run(self, native: Path, folder: Path) -> int:
        """Train the case of a folder; the exit status."""
        command = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", f"-Donnxruntime.native.path={native}"]
        command += ["-cp", self.class_path, "dev.hetlora.ort.TrainingCaseKt", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode in (0, KILLED), done.stderr
        return done.returncode


@pytest.fixture(scope="module")
def jvm() -> Jvm:
    def told(*command: str) -> list[str]:
        script = [sys.executable, str(CLIENT / "ci" / command[0]), *command[1:]]
        done = subprocess.run(script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()

    upstream, training = told("onnxruntime_java.py")
    return Jvm(told("build.py", "trainer-ort", "--class-path")[-1], Path(upstream), Path(training))


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
    def packed(array: NDArray[Any]) -> dict[str, object]:
        return {"dtype": str(array.dtype), "shape": list(array.shape), "hex": array.tobytes().hex()}

    manifest = bundle.manifest
    assert manifest.android is not None
    case = {
        "gradients": str(bundle.path(manifest.android.gradients)),
        "eval": str(bundle.path(manifest.graphs.eval)),
        "inference": None if has_decoder(manifest.task) else str(bundle.path(manifest.graphs.inference)),
        "inputs": {tensor.name: tensor.dtype for tensor in manifest.inputs},
        "max_tokens": manifest.max_tokens,
        "classes": len(manifest.labels) or manifest.generation.vocabulary,  # type: ignore[union-attr]
        "generates": manifest.generates,
        "has_decoder": has_decoder(manifest.task),
        "micro_batch": None,
        "settings": json.loads(SETTINGS.model_dump_json()),
        "factors": {key: packed(own) for key, own in to_tensors(adapter).items()},
        "trained": [factor_keys(name) for name in manifest.trained],
        "batches": [{name: packed(own) for name, own in batch.items()} for batch in batches_for(bundle)],
        "killed_after": None,
    }
    folder.mkdir(exist_ok=True)
    (folder / "case.json").write_text(json.dumps(case | changes))


def answer_in(folder: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


def trained_in_python(trainer: Trainer, bundle: Bundle) -> list[float]:
    batches = batches_for(bundle)
    return [trainer.step(batches[step % len(batches)]) for step in range(STEPS)]


@pytest.mark.parametrize("family", ["bert", "llama", "t5", "vit"])
def test_kotlin_trains_to_the_bits_of_python_on_the_same_kernels(
    family: str, jvm: Jvm, bundle_of: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of(family)
    adapter = adapter_for(bundle)
    write_case(tmp_path / "case", bundle, adapter)
    assert jvm.run(jvm.training, tmp_path / "case") == 0
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
    jvm: Jvm, bundle_of: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of("bert")
    adapter = adapter_for(bundle)
    write_case(tmp_path / "case", bundle, adapter, micro_batch=2)
    assert jvm.run(jvm.upstream, tmp_path / "case") == 0
    runtime = OnnxRuntime(bundle, adapter.ranks, threads=1)
    trainer = Trainer(runtime, adapter, bundle.manifest, SETTINGS, micro_batch=2)
    losses = trained_in_python(trainer, bundle)
    np.testing.assert_allclose(answer_in(tmp_path / "case")["losses"], losses, rtol=LOSS_TOLERANCE)


def test_kotlin_goes_on_after_a_kill_to_the_same_bits(
    jvm: Jvm, bundle_of: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of("bert")
    adapter = adapter_for(bundle)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write_case(whole, bundle, adapter)
    write_case(killed, bundle, adapter, killed_after=KILLED_AFTER)
    assert jvm.run(jvm.upstream, whole) == 0
    assert jvm.run(jvm.upstream, killed) == KILLED
    assert not (killed / "answer.json").exists()
    assert jvm.run(jvm.upstream, killed) == 0
    undisturbed, resumed = answer_in(whole), answer_in(killed)
    assert resumed["factors"] == undisturbed["factors"]
    assert resumed["losses"] == undisturbed["losses"][KILLED_AFTER:]


def test_tokens_that_the_model_does_not_know_are_refused_without_being_told(
    jvm: Jvm, bundle_of: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of("bert")
    write_case(tmp_path / "case", bundle, adapter_for(bundle))
    case = json.loads((tmp_path / "case" / "case.json").read_text())
    strange = np.full((3, 11), 98765, np.int64)
    case["batches"][0]["input_ids"]["hex"] = strange.tobytes().hex()
    (tmp_path / "case" / "case.json").write_text(json.dumps(case))
    with pytest.raises(AssertionError, match="the model refuses the batch") as refused:
        jvm.run(jvm.upstream, tmp_path / "case")
    assert "98765" not in str(refused.value)
