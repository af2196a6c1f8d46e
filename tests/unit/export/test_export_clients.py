"""What `--runtime android,web` adds to a bundle, and what it leaves as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from parity import batch_for, export_family, trained_adapter
from plain_sessions import open_gradients, run_gradients
from tiny_families import write_tiny_family
from trainers import trainer_of

from edge_sdk.runtimes.onnx import OnnxRuntime
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle, open_bundle
from hetlora.errors import BundleInvalid
from hetlora.tensors import factor_keys, to_tensors

TOLERANCE = 1e-5  # of the largest entry of the same tensor: other kernels, in float32
CHOICES = (
    {"base": "int8"},
    {"base": "int4"},
    {"base": "float16"},
    {"base": "bfloat16"},
    {"recompute": "layer"},
    {"recompute": "selective"},
    {"base": "int8", "recompute": "layer"},
)
Export = Callable[..., Bundle]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Exports one tiny Llama, as asked."""
    root = tmp_path_factory.mktemp("clients")
    model = write_tiny_family(root / "model", "llama")

    def made(*runtimes: str, **choices: object) -> Bundle:
        folder = root / "-".join(map(str, (*runtimes, *choices.values())))
        if folder.exists():
            return open_bundle(folder)
        return export_family("llama", model, folder, runtimes=runtimes, **choices)

    return made


def test_both_share_one_more_file_that_others_do_not_fetch(export: Export) -> None:
    bundle, usual = export("android", "web"), export("onnx")
    assert bundle.manifest.runtimes == ("onnx", "android", "web")
    assert bundle.manifest.files.keys() - usual.manifest.files.keys() == {"gradients.onnx"}
    assert bundle.manifest.files_of("android") == bundle.manifest.files_of("web")
    assert bundle.manifest.files_of("android") - bundle.manifest.files_of("onnx") == {"gradients.onnx"}
    assert bundle.manifest.files_of("onnx") == usual.manifest.files_of("onnx")


def test_other_files_and_manifests_of_other_runtimes_keep_their_bytes(export: Export) -> None:
    bundle, usual = export("android", "web"), export("onnx")
    assert {name: bundle.manifest.files[name] for name in usual.manifest.files} == usual.manifest.files
    told = usual.path("manifest.json").read_text()
    assert "android" not in told
    assert "web" not in told


def test_bundle_for_pages_alone_is_none_for_phones(export: Export) -> None:
    bundle = export("web")
    assert bundle.manifest.runtimes == ("onnx", "web")
    with pytest.raises(BundleInvalid, match="no files for android"):
        bundle.manifest.files_of("android")


@pytest.mark.parametrize("choices", CHOICES, ids=lambda choices: "-".join(choices.values()))
def test_gradients_are_those_of_the_training_graph(export: Export, choices: dict[str, str]) -> None:
    bundle = export("web", **choices)
    check_gradients(bundle, trained_adapter(bundle.manifest.adapter))


@pytest.mark.parametrize("ranks", [(1,), (3,), (4, 0, 2)], ids=str)
def test_one_graph_serves_every_rank_and_unequal_ones(export: Export, ranks: tuple[int, ...]) -> None:
    bundle = export("web")
    check_gradients(bundle, trained_adapter(bundle.manifest.adapter, ranks))


def test_untrained_modules_have_no_gradient(export: Export) -> None:
    bundle = export("web", trained_layers=1)
    manifest = bundle.manifest
    assert 0 < len(manifest.trained) < len(manifest.adapter.modules)
    names = {value.name for value in open_gradients(bundle).get_outputs()}
    keys = [key for name in manifest.trained for key in factor_keys(name)]
    assert names == {"loss", *(f"{key}_grad" for key in keys)}


def check_gradients(bundle: Bundle, adapter: Adapter) -> None:
    """Python's own runtime is what the plain graph is held against."""
    batch = batch_for(bundle)
    runtime = OnnxRuntime(bundle, adapter.ranks, threads=1)
    loss, expected = runtime.gradients(batch, to_tensors(adapter))
    answers = run_gradients(bundle, batch, adapter)
    assert answers["loss"] == pytest.approx(loss, abs=1e-6)
    for key, wanted in expected.items():
        # A module of rank 0 is fed as zeros, whose gradients are zero.
        own = answers[f"{key}_grad"][tuple(slice(size) for size in wanted.shape)]
        assert np.abs(own - wanted).max(initial=0) <= TOLERANCE * np.abs(wanted).max(initial=0), key


def test_quantised_weights_stay_so_though_constants_are_folded(export: Export, tmp_path: Path) -> None:
    bundle = export("web", base="int8")
    open_gradients(bundle, str(tmp_path / "optimized.onnx"))
    graph = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    matrices = [name for name, tensor in stored.items() if "proj" in name and len(tensor.dims) == 2]
    assert len(matrices) >= 14  # seven in each of two layers
    assert {stored[name].data_type for name in matrices} == {onnx.TensorProto.INT8}
    # Whatever else was folded is smaller than one matrix would be.
    floats = [tensor for tensor in stored.values() if tensor.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(tensor.dims)) for tensor in floats) < 32 * 32


def test_steps_taken_on_the_host_are_those_of_the_sdk(export: Export) -> None:
    bundle = export("web")
    batch, adapter = batch_for(bundle), trained_adapter(bundle.manifest.adapter)
    optimizer = bundle.manifest.optimizer
    factors = {key: value.astype(np.float64) for key, value in to_tensors(adapter).items()}
    first = {key: np.zeros_like(value) for key, value in factors.items()}
    second = {key: np.zeros_like(value) for key, value in factors.items()}
    session, losses = open_gradients(bundle), []
    outputs = [value.name for value in session.get_outputs()]
    for step in range(1, 6):
        fed = {key: value.astype(np.float32) for key, value in factors.items()}
        answers = dict(zip(outputs, session.run(outputs, {**batch, **fed}), strict=True))
        losses.append(float(answers["loss"]))
        for key in factors:
            gradient = answers[f"{key}_grad"].astype(np.float64)
            first[key] = optimizer.beta1 * first[key] + (1 - optimizer.beta1) * gradient
            second[key] = optimizer.beta2 * second[key] + (1 - optimizer.beta2) * gradient**2
            mean = first[key] / (1 - optimizer.beta1**step)
            root = np.sqrt(second[key] / (1 - optimizer.beta2**step)) + optimizer.epsilon
            factors[key] = factors[key] * (1 - 1e-2 * optimizer.weight_decay) - 1e-2 * mean / root
    trainer = trainer_of(bundle, adapter, learning_rate=1e-2)
    expected = [trainer.step(batch) for _ in range(5)]
    assert losses == pytest.approx(expected, abs=1e-5)
    assert losses[-1] < losses[0]
