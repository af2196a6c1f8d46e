"""PyTorch's runtime: a model built from a bundle, factors that come and go, and bundles that mean harm."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from parity import batch_for, export_family, trained_adapter
from tiny_families import write_tiny_family

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxModel
from edge_sdk.runtimes.pytorch import PytorchModel, PytorchRuntime
from edge_sdk.runtimes.pytorch_library import import_libraries, with_lora
from edge_sdk.runtimes.pytorch_network import in_our_words
from hetlora.adapter import Adapter, initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, DataError, DependencyMissing, SettingsError
from hetlora.graph_names import IGNORED_LABEL
from hetlora.tensors import factor_keys, to_tensors

# float32, with sums in another order; logits reach 20.
LOGITS_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A two-layer GPT-2, whose layers lie transposed and whose masks are made beside its weights."""
    root = tmp_path_factory.mktemp("gpt2")
    model = write_tiny_family(root / "model", "gpt2")
    return export_family("gpt2", model, root / "bundle", runtimes=("onnx", "pytorch"))


@pytest.fixture
def batch(bundle: Bundle) -> Batch:
    return batch_for(bundle)


def _adapter(bundle: Bundle, *ranks: int) -> Adapter:
    return trained_adapter(bundle.manifest.adapter, ranks or (3,))


def _open(bundle: Bundle, *ranks: int) -> PytorchRuntime:
    return PytorchRuntime(bundle, _adapter(bundle, *ranks).ranks, threads=1)


def _with_file(bundle: Bundle, folder: Path, name: str, data: bytes) -> Bundle:
    """The bundle with another file in place of one of its own."""
    folder.mkdir(exist_ok=True)
    for other in bundle.manifest.files:
        (folder / other).symlink_to(bundle.path(other))
    (folder / name).unlink()
    (folder / name).write_bytes(data)
    return replace(bundle, folder=folder)


def _with_config(bundle: Bundle, folder: Path, **changes: Any) -> Bundle:
    config = json.loads(bundle.path("config.json").read_text())
    return _with_file(bundle, folder, "config.json", json.dumps({**config, **changes}).encode())


def test_factors_of_other_ranks_are_taken_one_after_the_other(bundle: Bundle, batch: Batch) -> None:
    runtime = _open(bundle, 2)
    for ranks in [(2,), (4, 1, 3), (1,), (2,)]:
        factors = to_tensors(_adapter(bundle, *ranks))
        loss, gradients = runtime.gradients(batch, factors)
        alone, expected = _open(bundle, *ranks).gradients(batch, factors)
        assert loss == alone
        for key, gradient in gradients.items():
            assert gradient.shape == factors[key].shape
            assert (gradient == expected[key]).all(), key


def test_module_of_rank_0_has_gradients_without_numbers(bundle: Bundle, batch: Batch) -> None:
    adapter = _adapter(bundle, 0, 3)
    _, gradients = _open(bundle, 0, 3).gradients(batch, to_tensors(adapter))
    first, second = (module.name for module in adapter.spec.modules[:2])
    assert [gradients[key].size for key in factor_keys(first)] == [0, 0]
    assert all(np.abs(gradients[key]).max() > 0 for key in factor_keys(second))


def test_gradient_is_the_slope_of_the_loss(bundle: Bundle, batch: Batch) -> None:
    runtime, factors = _open(bundle, 2), to_tensors(_adapter(bundle, 2))
    loss, gradients = runtime.gradients(batch, factors)
    length = sum(float((gradient**2).sum()) for gradient in gradients.values())
    step = 1e-4 / np.sqrt(length)  # far enough for float32, and near enough to be straight
    moved = {key: factors[key] - np.float32(step) * gradients[key] for key in factors}
    assert loss - runtime.evaluate(batch, moved).loss == pytest.approx(step * length, rel=0.05)


def test_text_with_nothing_to_learn_has_no_loss_and_no_gradient(bundle: Bundle, batch: Batch) -> None:
    nothing = {**batch, "labels": np.full_like(batch["labels"], IGNORED_LABEL)}
    loss, gradients = _open(bundle).gradients(nothing, to_tensors(_adapter(bundle)))
    assert loss == 0
    assert not any(np.abs(gradient).max() for gradient in gradients.values())


def test_logits_are_those_of_onnx_runtime_with_and_without_an_adapter(bundle: Bundle, batch: Batch) -> None:
    opened = PytorchModel(bundle, threads=1)
    other, fresh = (
        _adapter(bundle, 4, 0),
        initial_adapter(bundle.manifest.adapter, 2, np.random.default_rng(0)),
    )
    for adapter in (None, other, fresh):
        expected = OnnxModel(bundle, threads=1).logits(batch, adapter=adapter)
        assert np.abs(opened.logits(batch, adapter=adapter) - expected).max() <= LOGITS_TOLERANCE
    assert np.abs(opened.logits(batch, adapter=other) - opened.logits(batch)).max() > 100 * LOGITS_TOLERANCE


def test_token_outside_the_vocabulary_is_refused_and_training_goes_on(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "bert")  # of a classifier no manifest tells the vocabulary
    bundle = export_family("bert", model, tmp_path / "bundle", runtimes=("pytorch",))
    runtime, batch = _open(bundle), batch_for(bundle)
    factors = to_tensors(_adapter(bundle))
    strange = {**batch, "input_ids": np.full_like(batch["input_ids"], 10**6)}
    with pytest.raises(DataError, match="tokens of a batch are out of range"):
        runtime.gradients(strange, factors)
    strange = {**batch, "token_type_ids": np.full_like(batch["input_ids"], 10**6)}
    with pytest.raises(DataError, match="the model refuses the batch"):
        runtime.gradients(strange, factors)
    assert runtime.gradients(batch, factors)[0] > 0


def test_bundle_without_its_files_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleInvalid, match="no files for PyTorch"):
        _open(tiny_bundle)


def test_bundle_of_quantised_weights_is_refused(bundle: Bundle) -> None:
    manifest = bundle.manifest.model_copy(update={"base_precision": "int8"})
    with pytest.raises(BundleInvalid, match="no quantised weights; got int8"):
        _open(replace(bundle, manifest=manifest))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"n_layer": 1}, "other weights than the bundle; got .* more", id="a layer fewer"),
        pytest.param({"n_layer": 3}, "other weights than the bundle", id="a layer more"),
        pytest.param({"vocab_size": 2**24}, "shape of weight transformer.wte", id="16 million words"),
        # Its masks of positions would take 2^48 bytes in each layer.
        pytest.param({"n_positions": 2**24}, "shape of weight transformer.wpe", id="16 million positions"),
        pytest.param({"n_head": 7}, "cannot build the model", id="heads that divide nothing"),
        pytest.param({"activation_function": "os.system"}, "cannot build the model", id="no activation"),
        pytest.param({"n_embd": "32"}, "cannot build the model", id="a word for a number"),
        pytest.param({"model_type": "opt"}, "cannot build the model|other weights", id="another model"),
        pytest.param({"model_type": "bert"}, "architecture is not known", id="of another task"),
    ],
)
def test_configuration_that_does_not_fit_the_weights_is_refused(
    changes: dict[str, Any], words: str, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(BundleInvalid, match=words):
        _open(_with_config(bundle, tmp_path, **changes))


def test_switches_of_a_configuration_change_nothing(bundle: Bundle, batch: Batch, tmp_path: Path) -> None:
    switched = _with_config(
        bundle, tmp_path, return_dict=False, torchscript=True, output_attentions=True, use_cache=True
    )
    factors = to_tensors(_adapter(bundle))
    assert _open(switched).gradients(batch, factors)[0] == _open(bundle).gradients(batch, factors)[0]


def test_map_that_leads_to_other_shapes_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    told = json.loads(bundle.path("weights.json").read_text())
    told["weights"]["transformer.ln_f.weight"]["shape"] = [16]
    with pytest.raises(
        BundleInvalid, match=r"shape of weight transformer.ln_f.weight; got \(16,\); .*\(32,\)"
    ):
        _open(_with_file(bundle, tmp_path, "weights.json", json.dumps(told).encode()))


def test_weight_that_is_not_there_is_named(bundle: Bundle, tmp_path: Path) -> None:
    told = json.loads(bundle.path("weights.json").read_text())
    del told["weights"]["transformer.ln_f.weight"]
    with pytest.raises(BundleInvalid, match=r"1 others, such as \['transformer.ln_f.weight'\]"):
        _open(_with_file(bundle, tmp_path, "weights.json", json.dumps(told).encode()))


def test_prototypes_of_another_number_of_labels_are_refused(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "bert")
    bundle = export_family("bert", model, tmp_path / "bundle", runtimes=("pytorch",))
    told = json.loads(bundle.path("weights.json").read_text())
    told["prototypes"]["shape"] = [2, 32]
    changed = _with_file(bundle, tmp_path / "changed", "weights.json", json.dumps(told).encode())
    with pytest.raises(BundleInvalid, match=r"prototypes; got \(2, 32\); expected \(3, 32\)"):
        _open(changed)


def test_bundle_without_its_weights_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    changed = _with_file(bundle, tmp_path, "base.bin", b"")
    with pytest.raises(BundleInvalid, match="leads beyond the base weights"):
        _open(changed)
    changed.path("base.bin").unlink()
    with pytest.raises(BundleInvalid, match=r"base\.bin of the bundle cannot be read"):
        _open(changed)


def test_threads_that_ask_for_other_adapters_get_their_own_answers(bundle: Bundle, batch: Batch) -> None:
    opened = PytorchModel(bundle, threads=1)
    adapters = [_adapter(bundle, *ranks) for ranks in ((1,), (4,), (2, 3))]
    alone = [opened.logits(batch, adapter=adapter) for adapter in adapters]
    with ThreadPoolExecutor(3) as pool:
        asked = adapters * 10
        together = list(pool.map(lambda adapter: opened.logits(batch, adapter=adapter), asked))
    for place, logits in enumerate(together):
        assert (logits == alone[place % 3]).all()


def test_lack_of_memory_is_no_fault_of_the_batch() -> None:
    with pytest.raises(MemoryError, match="no memory for the batch"), in_our_words():
        torch.empty(2**46)


def test_lack_of_memory_is_no_fault_of_the_bundle() -> None:
    hungry = SimpleNamespace(LoraConfig=lambda **settings: torch.empty(2**46))
    with pytest.raises(MemoryError, match="no memory for the model"):
        with_lora(replace(import_libraries(), peft=hungry), torch.nn.Linear(1, 1), {"": 1}, 1.0)


def test_layer_that_is_none_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleInvalid, match="cannot be adapted"):
        PytorchRuntime(bundle, {"transformer.h.0.attn.nowhere": 2}, threads=1)


def test_threads_below_1_are_refused(bundle: Bundle) -> None:
    with pytest.raises(SettingsError, match="threads; got 0"):
        PytorchRuntime(bundle, _adapter(bundle).ranks, threads=0)


@pytest.mark.parametrize("package", ["transformers", "peft"])
def test_device_without_a_package_is_told_the_extra(
    package: str, bundle: Bundle, without: Callable[..., None]
) -> None:
    without(package)
    with pytest.raises(DependencyMissing, match=r"No module named .*; expected .*hetlora\[edge-pytorch\]"):
        _open(bundle)


# A device's process: computes gradients once, and prints what of the exporter came along.
DEVICE = """
import pickle, sys
from edge_sdk.runtimes.pytorch import PytorchRuntime
bundle, ranks, factors, batch = pickle.load(sys.stdin.buffer)
loss, _ = PytorchRuntime(bundle, ranks, threads=1).gradients(batch, factors)
heavy = ("onnx", "onnxruntime", "executorch", "export", "optimum")
print([name for name in heavy if name in sys.modules], loss > 0)
"""


@pytest.mark.slow  # the libraries take six seconds to import
def test_device_needs_nothing_of_the_exporter(bundle: Bundle, batch: Batch) -> None:
    adapter = _adapter(bundle)
    given = pickle.dumps((bundle, adapter.ranks, to_tensors(adapter), dict(batch)))
    done = subprocess.run([sys.executable, "-c", DEVICE], input=given, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().splitlines()[-1] == "[] True"
    assert done.stderr == b""
