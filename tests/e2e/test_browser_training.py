"""Training of the browser client, in Node over WebAssembly, beside that of the Python SDK."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_client import classify_case, train_case
from parity import trained_adapter

from edge_sdk.adapters.classification import TextClassifier
from edge_sdk.batching.collation import TextCollation
from edge_sdk.batching.tokens import text_encoder
from edge_sdk.examples.kinds import Example
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.training.trainer import open_trainer
from export.bundle_writer import export_bundle
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.manifest import Manifest
from hetlora.messages.device import Adaptation, TrainingSettings
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes, to_tensors

# Both in float32, with sums in another order; several times what was seen.
LOSS_TOLERANCE = 5e-6
FACTOR_TOLERANCE = 2e-5
WORDS = ("snow", "rain", "sun", "wind", "bread", "soup", "salt", "ball", "goal", "team")


pytestmark = pytest.mark.slow


def examples_of(manifest: Manifest, count: int) -> list[Example]:
    """Texts of three to eight words; labels where the task has some, else two words to go on with."""
    rng = np.random.default_rng(5)
    labels: Sequence[str] = manifest.labels or ("sun wind", "goal team")
    return [
        Example(" ".join(rng.choice(WORDS, 3 + row % 6)), labels[row % len(labels)]) for row in range(count)
    ]


def write_case(
    folder: Path, bundle: Bundle, adapter: Adapter, settings: TrainingSettings, **case: Any
) -> list[Example]:
    """What train.ts reads: the bundle, an adapter, settings, examples and the plan's adaptation."""
    examples = examples_of(bundle.manifest, 10)
    (folder / "bundle").symlink_to(bundle.folder)
    (folder / "adapter.safetensors").write_bytes(adapter_to_bytes(adapter))
    (folder / "settings.json").write_text(settings.model_dump_json())
    told = [{"text": example.text, "label": example.label} for example in examples]
    (folder / "case.json").write_text(
        json.dumps({"examples": told, "adaptation": {}, "micro_batch": None} | case)
    )
    return examples


def check_like_python(
    folder: Path,
    bundle: Bundle,
    settings: TrainingSettings,
    adaptation: Adaptation | None = None,
    **case: Any,
) -> None:
    """Losses and factors of the browser client equal Python's over the same batches."""
    adaptation = adaptation or Adaptation()
    adapter = trained_adapter(bundle.manifest.adapter)
    told = adaptation.model_dump(mode="json")
    examples = write_case(folder, bundle, adapter, settings, adaptation=told, **case)
    got = train_case(folder)
    trainer = open_trainer(
        OnnxRuntime,
        bundle,
        adapter,
        settings,
        threads=1,
        parametrisation=Parametrisation(adaptation),
        micro_batch=case.get("micro_batch"),
    )
    encoder = text_encoder(bundle, max_tokens=settings.max_tokens)
    collate = TextCollation(bundle.manifest.task, bundle.manifest.labels, encoder)
    batches = [collate([examples[place] for place in places]) for places in got["places"]]
    wanted = [trainer.step(batch) for batch in batches]
    assert len(wanted) == settings.steps
    assert np.abs(np.array(got["losses"]) - wanted).max() <= LOSS_TOLERANCE
    trained = adapter_from_bytes((folder / "trained.safetensors").read_bytes(), bundle.manifest.adapter)
    mine, theirs = to_tensors(trainer.adapter()), to_tensors(trained)
    begun = to_tensors(adapter)
    for key, tensor in mine.items():
        assert np.abs(theirs[key] - tensor).max() <= FACTOR_TOLERANCE, key
    assert any(np.abs(tensor - begun[key]).max() > 50 * FACTOR_TOLERANCE for key, tensor in mine.items())


def test_a_classifier_trains_as_in_python_at_mixed_ranks_with_every_option(
    tmp_path: Path, web_bundle: Bundle
) -> None:
    settings = TrainingSettings(
        steps=8,
        batch_size=4,
        learning_rate=2e-3,
        max_tokens=8,
        schedule="cosine",
        warm_up_steps=2,
        max_gradient_norm=0.5,
        proximal=0.1,
        pruning_decay=0.5,
        pruning_penalty=0.05,
    )
    check_like_python(tmp_path, web_bundle, settings, micro_batch=3)


def test_a_plan_for_one_factor_and_amplification_is_kept_to(tmp_path: Path, web_bundle: Bundle) -> None:
    settings = TrainingSettings(
        steps=6, batch_size=4, learning_rate=1e-2, optimizer="sgd", momentum=0.9, max_tokens=16
    )
    adaptation = Adaptation(trained="lora_B", lora_B_rate=5.0, amplification=2.0)
    check_like_python(tmp_path, web_bundle, settings, adaptation)


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "t5"])
def test_models_that_generate_text_train_as_in_python(tmp_path: Path, name: str) -> None:
    from parity import export_family
    from tiny_families import write_tiny_family

    bundle = export_family(
        name, write_tiny_family(tmp_path / "model", name), tmp_path / "exported", runtimes=("web",)
    )
    settings = TrainingSettings(steps=4, batch_size=4, learning_rate=2e-3, max_tokens=10)
    check_like_python(tmp_path, bundle, settings)


def test_int8_weights_train_as_in_python(tmp_path: Path, tiny_model_folder: Path) -> None:
    bundle = export_bundle(
        str(tiny_model_folder),
        tmp_path / "exported",
        labels=["weather", "food", "sport"],
        targets=["query", "value"],
        max_rank=8,
        max_tokens=32,
        base="int8",
        runtimes=("web",),
    )
    check_like_python(tmp_path, bundle, TrainingSettings(steps=4, batch_size=4, learning_rate=2e-3))


def test_scores_before_and_after_a_training_tell_that_it_learned(tmp_path: Path, web_bundle: Bundle) -> None:
    adapter = trained_adapter(web_bundle.manifest.adapter)
    settings = TrainingSettings(steps=30, batch_size=10, learning_rate=1e-2, pruning_penalty=0.0)
    write_case(tmp_path, web_bundle, adapter, settings)
    got = train_case(tmp_path)
    assert got["after"]["loss"] < 0.8 * got["before"]["loss"]
    assert got["after"]["accuracy"] >= got["before"]["accuracy"]
    # All ten examples make one batch, and the first step's loss is that of the model as it was sent.
    assert got["losses"][0] == pytest.approx(got["before"]["loss"], abs=1e-5)


def test_texts_get_the_labels_and_probabilities_that_python_gives_them(
    tmp_path: Path, web_bundle: Bundle
) -> None:
    adapter = trained_adapter(web_bundle.manifest.adapter)
    texts = ["snow and wind", "bread, soup", "", "ball " * 100]  # the last is cut to 32 tokens
    (tmp_path / "bundle").symlink_to(web_bundle.folder)
    (tmp_path / "adapter.safetensors").write_bytes(adapter_to_bytes(adapter))
    (tmp_path / "texts.json").write_text(json.dumps({"texts": texts, "amplification": 1.0}))
    classifier = TextClassifier(web_bundle, threads=1)

    for text, answers in zip(texts, classify_case(tmp_path), strict=True):
        wanted = classifier.classify(text, adapter=adapter)
        assert answers[0]["label"] == wanted.label
        assert answers[0]["probability"] == pytest.approx(wanted.probability, abs=1e-6)
        assert sorted(own["label"] for own in answers) == sorted(web_bundle.manifest.labels)
        assert sum(own["probability"] for own in answers) == pytest.approx(1.0, abs=1e-12)
    # The adapter counts: without it the model answers otherwise.
    bare = classifier.classify(texts[0])
    told = {own["label"]: own["probability"] for own in classify_case(tmp_path)[0]}
    assert abs(told[bare.label] - bare.probability) > 1e-4
