"""Merged weights, and ONNX graphs with an adapter in them, answer as PEFT does with the folder of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from peft import PeftModel
from tiny_families import IMAGE, TINY_FAMILIES, VOCABULARY, write_tiny_family
from transformers import AutoModel, AutoTokenizer

from edge_sdk.runtimes.onnx import OnnxModel
from export.bundle_writer import export_bundle
from export.finished.inference_graph import write_inference_folder
from export.finished.merged_model import write_merged_folder
from export.quiet import quiet_libraries
from export.source.model_folder import load_model
from export.source.tracing import auto_class
from export.stamping import stamp
from hetlora.adapter import Adapter, LoraFactors
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, DigestMismatch, ModelNotExportable, RankOutOfRange, SpecMismatch
from hetlora.tensors import to_tensors, write_peft_folder

TOLERANCE = 1e-4  # float32, with B A added before or after the product
RANKS = (4, 0, 1, 2)  # go round over the modules
IDS = np.arange(12).reshape(2, 6) % len(VOCABULARY)
TOKENS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
# What a model of each task is asked.
ASKED: Final[dict[str, dict[str, NDArray[Any]]]] = {
    "text-generation": TOKENS,
    "text2text-generation": {**TOKENS, "decoder_input_ids": IDS[:, :4].copy()},
    "image-classification": {
        "pixel_values": np.random.default_rng(0).standard_normal((2, *IMAGE)).astype(np.float32)
    },
}


@dataclass(frozen=True)
class Case:
    """A tiny model, its bundle, an adapter of unequal ranks, and the folder of it that PEFT loads."""

    task: str
    model: Path
    bundle: Bundle
    adapter: Adapter
    peft: Path

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """PEFT's."""
        with quiet_libraries():
            return logits_of(
                PeftModel.from_pretrained(load_model(self.model, self.task), str(self.peft)).eval(), self.task
            )


def logits_of(model: torch.nn.Module, task: str) -> NDArray[np.float32]:
    with torch.no_grad():
        asked = {name: torch.from_numpy(value) for name, value in ASKED[task].items()}
        logits: NDArray[np.float32] = model(**asked).logits.numpy()
    return logits


def made(root: Path, family: str) -> Case:
    model = write_tiny_family(root / family, family)
    task, targets = TINY_FAMILIES[family].task, TINY_FAMILIES[family].targets
    bundle = export_bundle(
        str(model), root / f"{family}-bundle", task=task, targets=targets, max_rank=4, max_tokens=16
    )
    rng = np.random.default_rng(0)
    spec = bundle.manifest.adapter
    factors = {
        module.name: LoraFactors(
            rng.standard_normal((rank, module.in_features)).astype(np.float32),
            0.1 * rng.standard_normal((module.out_features, rank)).astype(np.float32),
        )
        for module, rank in zip(spec.modules, RANKS * len(spec.modules), strict=False)
    }
    adapter = Adapter(spec, factors)
    write_peft_folder(adapter, root / f"{family}-peft", base_model=str(model), task=task)
    return Case(task, model, bundle, adapter, root / f"{family}-peft")


@pytest.fixture(scope="module", params=["llama", "gpt2", "t5", "vit"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """GPT-2's matrices lie the other way round."""
    return made(tmp_path_factory.mktemp("finished"), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(tmp_path_factory.mktemp("finished"), "llama")


def session_of(folder: Path) -> InferenceSession:
    """As anybody opens a graph."""
    return InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])


def answer(folder: Path, task: str = "text-generation") -> NDArray[np.float32]:
    (logits,) = session_of(folder).run(["logits"], ASKED[task])
    return np.asarray(logits, np.float32)


def test_graph_with_the_adapter_in_it_answers_tokens_as_peft_does(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "onnx"
    write_inference_folder(case.bundle, case.adapter.factors, out, "run-v000001")

    session = session_of(out)

    assert {value.name for value in session.get_inputs()} == set(ASKED[case.task])
    assert np.abs(answer(out, case.task) - case.logits).max() <= TOLERANCE
    untrained = {
        name: LoraFactors(own.lora_A[:0], own.lora_B[:, :0]) for name, own in case.adapter.factors.items()
    }
    write_inference_folder(case.bundle, untrained, tmp_path / "untrained", "run-v000000")
    assert np.abs(answer(tmp_path / "untrained", case.task) - case.logits).max() > 100 * TOLERANCE
    told = session.get_modelmeta().custom_metadata_map
    assert (told["hetlora.adapter_version"], told["hetlora.task"]) == ("run-v000001", case.task)
    assert told["hetlora.bundle"] == case.bundle.digest
    reads_text = {"tokenizer.json"} if "input_ids" in ASKED[case.task] else set()
    assert {path.name for path in out.iterdir()} == {"model.onnx", "base.bin"} | reads_text


def test_merged_weights_answer_as_peft_does_without_it(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    write_merged_folder(case.bundle.manifest, case.peft, out, model=str(case.model))

    with quiet_libraries():
        model = auto_class(case.task).from_pretrained(out).eval()
        if "input_ids" in ASKED[case.task]:
            tokenizer = AutoTokenizer.from_pretrained(out)
            assert tokenizer("snow rain")["input_ids"] == [VOCABULARY["snow"], VOCABULARY["rain"]]

    assert np.abs(logits_of(model, case.task) - case.logits).max() <= TOLERANCE
    assert not any("lora" in name for name, _ in model.named_parameters())
    before, after = (json.loads((folder / "config.json").read_bytes()) for folder in (case.model, out))
    assert after.get("use_cache") == before.get("use_cache")
    assert after["architectures"] == before["architectures"]


def test_graph_of_quantised_weights_keeps_them_and_answers_as_devices_do(llama: Case, tmp_path: Path) -> None:
    bundle = export_bundle(
        str(llama.model),
        tmp_path / "int8",
        task=llama.task,
        targets=TINY_FAMILIES["llama"].targets,
        max_rank=4,
        max_tokens=16,
        base="int8",
    )
    write_inference_folder(bundle, llama.adapter.factors, tmp_path / "onnx", "v")
    assert (tmp_path / "onnx" / "base.bin").read_bytes() == bundle.path("base.bin").read_bytes()
    on_devices = OnnxModel(bundle, to_tensors(llama.adapter), threads=1).logits(TOKENS)
    assert np.abs(answer(tmp_path / "onnx") - on_devices).max() <= TOLERANCE


def test_encoder_of_a_text_classifier_is_merged_and_its_graph_answers_labels(
    tiny_model_folder: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    spec = tiny_bundle.manifest.adapter
    factors = {
        module.name: LoraFactors(
            rng.standard_normal((2, module.in_features)).astype(np.float32),
            rng.standard_normal((module.out_features, 2)).astype(np.float32),
        )
        for module in spec.modules
    }
    write_peft_folder(Adapter(spec, factors), tmp_path / "peft", base_model="tiny")
    write_merged_folder(
        tiny_bundle.manifest, tmp_path / "peft", tmp_path / "merged", model=str(tiny_model_folder)
    )
    write_inference_folder(tiny_bundle, factors, tmp_path / "onnx", "v")

    with quiet_libraries():
        merged = AutoModel.from_pretrained(tmp_path / "merged").eval()
        adapted = load_model(tiny_model_folder, "text-classification")
        adapted = PeftModel.from_pretrained(adapted, str(tmp_path / "peft")).eval()
    tokens = {name: torch.from_numpy(value) for name, value in TOKENS.items()}
    with torch.no_grad():
        difference = merged(**tokens).last_hidden_state - adapted(**tokens).last_hidden_state
    assert difference.abs().max() <= TOLERANCE
    session = session_of(tmp_path / "onnx")
    feeds = {value.name: TOKENS.get(value.name, np.zeros_like(IDS)) for value in session.get_inputs()}
    (logits,) = session.run(["logits"], feeds)
    labels = json.loads(session.get_modelmeta().custom_metadata_map["hetlora.labels"])
    assert labels == ["weather", "food", "sport"]
    assert logits.shape == (2, len(labels))


def test_base_model_of_other_weights_is_refused(llama: Case, tmp_path: Path) -> None:
    other = write_tiny_family(tmp_path / "other", "llama", seed=1)
    with pytest.raises(DigestMismatch, match="the weights of"):
        write_merged_folder(llama.bundle.manifest, llama.peft, tmp_path / "out", model=str(other))
    assert not (tmp_path / "out").exists()


def test_stamped_graph_takes_no_rank_above_its_own(llama: Case, tmp_path: Path) -> None:
    stamped = stamp(llama.bundle, tmp_path / "stamped", rank=2)
    with pytest.raises(RankOutOfRange, match="stamped for one rank"):
        write_inference_folder(stamped, llama.adapter.factors, tmp_path / "out", "v")
    cut = {
        name: LoraFactors(own.lora_A[:2], own.lora_B[:, :2]) for name, own in llama.adapter.factors.items()
    }
    write_inference_folder(stamped, cut, tmp_path / "stamped-onnx", "v")
    write_inference_folder(llama.bundle, cut, tmp_path / "onnx", "v")
    np.testing.assert_allclose(answer(tmp_path / "stamped-onnx"), answer(tmp_path / "onnx"), atol=1e-5)


def test_what_cannot_be_written_leaves_nothing(llama: Case, tmp_path: Path) -> None:
    factors = dict(llama.adapter.factors)
    first, *_ = factors
    with pytest.raises(SpecMismatch, match="not of this bundle"):
        write_inference_folder(llama.bundle, {first: factors[first]}, tmp_path / "out", "v")
    wide = LoraFactors(np.zeros((1, 3), np.float32), np.zeros((5, 1), np.float32))
    with pytest.raises(SpecMismatch, match=f"factors of {first}"):
        write_inference_folder(llama.bundle, factors | {first: wide}, tmp_path / "out", "v")
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(ModelNotExportable, match="taken"):
        write_inference_folder(llama.bundle, factors, tmp_path / "taken", "v")
    torn = Bundle(tmp_path, llama.bundle.manifest, llama.bundle.digest)
    with pytest.raises(BundleInvalid, match=r"inference\.onnx cannot be read"):
        write_inference_folder(torn, factors, tmp_path / "out", "v")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
