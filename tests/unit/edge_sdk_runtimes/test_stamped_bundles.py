"""A stamped bundle beside the one that it was made of: the same texts, losses and answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from parity import trained_adapter
from tiny_model import WORDS
from trainers import trainer_of

from edge_sdk.adapters.generation import TextGenerator
from edge_sdk.batching.collation import TextCollation
from edge_sdk.batching.tokens import text_encoder
from edge_sdk.examples import Example
from edge_sdk.runtimes.onnx import OnnxModel
from export.stamping import stamp
from hetlora.adapter import Adapter, AdapterSpec
from hetlora.bundle import Bundle
from hetlora.tensors import to_tensors

RANK = 4
TOLERANCE = 1e-5  # fixed sizes may choose other kernels

FamilyBundle = Callable[[str], tuple[Path, Bundle]]


@pytest.fixture(params=["bert", "llama", "gpt2", "t5"])
def bundle(request: pytest.FixtureRequest, family_bundle: FamilyBundle) -> Bundle:
    return family_bundle(request.param)[1]


def _examples(bundle: Bundle, count: int) -> list[Example]:
    """Texts of one, two and three words."""
    labels = bundle.manifest.labels or [WORDS[7], f"{WORDS[8]} {WORDS[9]}"]
    return [Example(" ".join(WORDS[: place + 1]), labels[place % 2]) for place in range(count)]


def _losses(bundle: Bundle, examples: list[Example]) -> list[float]:
    manifest = bundle.manifest
    batch = TextCollation(manifest.task, manifest.labels, text_encoder(bundle))(examples)
    adapter = trained_adapter(manifest.adapter, (RANK,))
    trainer = trainer_of(bundle, adapter, pruning_decay=0.5, pruning_penalty=0.1, learning_rate=1e-2)
    before = trainer.evaluate(batch).loss
    return [before, *(trainer.step(batch) for _ in range(3))]


@pytest.mark.parametrize(("batch", "tokens"), [(None, 16), (1, 16), (3, None), (5, 16)])
def test_stamped_bundle_has_the_losses_of_the_symbolic_one(
    batch: int | None, tokens: int | None, bundle: Bundle, tmp_path: Path
) -> None:
    stamped = stamp(bundle, tmp_path / "stamped", rank=RANK, batch=batch, tokens=tokens)
    # Where text is generated two examples leave rows over; a classifier's batch is full.
    count = min(batch or 3, 2 if bundle.manifest.generates else 5)
    examples = _examples(bundle, count)
    losses = _losses(stamped, examples)
    assert losses == pytest.approx(_losses(bundle, examples), abs=TOLERANCE)
    assert losses[-1] < losses[1]


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("batch", [1, 3])
def test_stamped_bundle_generates_the_text_of_the_symbolic_one(
    family: str,
    batch: int,
    family_bundle: FamilyBundle,
    telling_adapter: Callable[[AdapterSpec, int], Adapter],
    tmp_path: Path,
) -> None:
    bundle = family_bundle(family)[1]
    stamped = stamp(bundle, tmp_path / "stamped", rank=RANK, batch=batch, tokens=12)
    adapter = telling_adapter(bundle.manifest.adapter, 3)
    answers = [
        TextGenerator(each, OnnxModel(each, to_tensors(adapter), threads=1)).generate(
            " ".join(WORDS[:3]), max_new_tokens=6
        )
        for each in (stamped, bundle)
    ]
    assert answers[0] == answers[1]
    assert answers[0].token_ids
