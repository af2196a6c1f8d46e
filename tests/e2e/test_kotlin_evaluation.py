"""A Kotlin device scores what it holds out, and answers with what it learned, as Python does."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from e2e_fleet import TinyFleet, labelled_rows, wait_until
from kotlin_client import command, device, write_rows
from numpy.typing import NDArray
from parity import export_family
from tiny_families import write_tiny_family
from tiny_model import WORDS

from edge_sdk.adapters.classification import TextClassifier
from edge_sdk.batching.tokens import text_encoder
from edge_sdk.examples import Example, ExampleStore
from edge_sdk.runtimes.onnx import OnnxModel, OnnxRuntime
from edge_sdk.training.scoring import score
from edge_sdk.training.trainer import open_trainer
from hetlora.adapter import Adapter, LoraFactors
from hetlora.algebra import truncate
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import AdapterVersionStatus, RunStatus
from hetlora.states import AssignmentState, EvaluationState, RunState
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes, to_tensors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LABELS = ["weather", "food", "sport"]
RANK = 4
TOKENS = 16
# Of kernels of another version; several times what was seen.
TOLERANCE = 2e-5
# More than a batch of 4, and some of them longer than a batch takes.
HELD_OUT = [
    (f"kept from training about {label} " + "and more " * number, label)
    for number in range(3)
    for label in LABELS
]


@dataclass(frozen=True)
class ScoredRound:
    """What a Kotlin device of rank 4 and one of Python left of a round that asked for scores."""

    fleet: TinyFleet
    run: RunStatus
    log: str  # of the Kotlin device, which tells each score
    folder: Path  # of its state

    def kept(self, place: str) -> Adapter:
        """An adapter that the Kotlin device keeps in files like Python's, by its place in the index."""
        adapters = self.folder / "adapters"
        index = json.loads((adapters / "index.json").read_text())
        data = (adapters / f"{index[place]['tensors']['sha256']}.safetensors").read_bytes()
        return adapter_from_bytes(data, self.fleet.bundle.manifest.adapter)


def closed_evaluations(fleet: TinyFleet, run: RunStatus) -> list[AdapterVersionStatus]:
    """The versions of a run that devices have scored."""
    return [
        own
        for own in fleet.operator.adapters(run.run_id)
        if own.evaluation is not None and own.evaluation.state is EvaluationState.CLOSED
    ]


@pytest.fixture(scope="module")
def scored(phone_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoredRound]:
    root = tmp_path_factory.mktemp("scored")
    examples = write_rows(root / "examples.tsv", labelled_rows(LABELS, 4))
    held_out = write_rows(root / "held_out.tsv", HELD_OUT)
    training = {"steps": 8, "batch_size": 4, "max_tokens": TOKENS, "learning_rate": 0.05}
    training |= {"pruning_decay": 1.0, "evaluate": True}
    evaluation = {"every_rounds": 1, "devices": 2, "minimum_reports": 2, "window_seconds": 300}
    with TinyFleet(root, phone_bundle) as fleet:
        run = fleet.start_run(
            rounds=1, goal_count=2, lease_seconds=300, training=training, evaluation=evaluation
        )
        with device(fleet, "ort.OrtDeviceKt", root / "kotlin", RANK, examples, held_out) as kotlin:
            fleet.evaluator("python", HELD_OUT[:4])
            assert fleet.finished(run).state is RunState.COMPLETED, kotlin.log.read_text()
            wait_until(lambda: len(closed_evaluations(fleet, run)) == 1, "the evaluation")
            wait_until(lambda: "evaluated" in kotlin.log.read_text(), "the receipt of the Kotlin device")
        yield ScoredRound(fleet, run, kotlin.log.read_text(), root / "kotlin")


def said_by(program: str, *arguments: object) -> str:
    """What a program of the client's tests prints."""
    return subprocess.run(command(program, *arguments), capture_output=True, text=True, check=True).stdout


def logits_of(fleet: TinyFleet, adapter: Adapter, rows: list[tuple[str, str]]) -> NDArray[np.float64]:
    encoder = text_encoder(fleet.bundle, max_tokens=TOKENS)
    model = OnnxModel(fleet.bundle, to_tensors(adapter), threads=1)
    return model.logits(encoder.encode([text for text, _ in rows])).astype(np.float64)


def scores_of(fleet: TinyFleet, adapter: Adapter, rows: list[tuple[str, str]]) -> tuple[float, int]:
    """Mean cross entropy, and how many are right: of the inference graph's logits, in float64."""
    logits = logits_of(fleet, adapter, rows)
    labels = np.array([LABELS.index(label) for _, label in rows])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = int((logits.argmax(axis=1) == labels).sum())
    return float(-np.log(shares[np.arange(len(rows)), labels]).mean()), right


def test_scores_before_and_after_a_round_are_what_python_makes_of_these_adapters(scored: ScoredRound) -> None:
    told = re.findall(r"held_out (before|after) (\d+) (\S+) (\d+)", scored.log)
    assert [(when, int(count)) for when, count, _, _ in told] == [("before", 9), ("after", 9)]
    for (_, _, loss, right), place in zip(told, ("newest_global", "newest_local"), strict=True):
        expected_loss, expected_right = scores_of(scored.fleet, scored.kept(place), HELD_OUT)
        assert float(loss) == pytest.approx(expected_loss, rel=TOLERANCE)
        assert int(right) == expected_right
    accepted = scored.fleet.in_state(scored.run, AssignmentState.ACCEPTED)
    status = next(own for own in accepted if own.device_name == "kotlin")
    assert [status.held_out_loss_before, status.held_out_loss_after] == [float(told[0][2]), float(told[1][2])]
    assert status.held_out_loss_after != status.held_out_loss_before


def test_version_of_a_round_is_scored_as_python_scores_it(scored: ScoredRound) -> None:
    fleet = scored.fleet
    own = closed_evaluations(fleet, scored.run)[0]
    version = fleet.committed(own.version)
    by_device = [scores_of(fleet, truncate(version, RANK), rows) for rows in (HELD_OUT, HELD_OUT[:4])]
    loss, right = re.findall(r"evaluated 9 (\S+) (\d+) ACCEPTED", scored.log)[0]
    assert float(loss) == pytest.approx(by_device[0][0], rel=TOLERANCE)
    assert int(right) == by_device[0][1]
    assert own.evaluation is not None
    assert own.evaluation.figures is not None
    assert own.evaluation.figures.example_count == 13
    assert own.evaluation.figures.device_loss == pytest.approx(
        (by_device[0][0] + by_device[1][0]) / 2, rel=1e-4
    )


@pytest.mark.parametrize(("kind", "place"), [("GLOBAL", "newest_global"), ("LOCAL", "newest_local")])
def test_app_answers_with_the_adapter_that_it_chose(
    scored: ScoredRound, kind: str, place: str, tmp_path: Path
) -> None:
    texts = ["where is the sun", "bread and soup", "a ball", "a word " * 40]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    said = said_by("ort.AnswersKt", scored.folder, tmp_path / "texts.txt", kind).splitlines()
    bundle = scored.fleet.bundle
    classifier = TextClassifier(bundle, OnnxModel(bundle, to_tensors(scored.kept(place)), threads=1))
    for line, text in zip(said, texts, strict=True):
        answers = json.loads(line)
        best = classifier.classify(text)
        assert next(iter(answers)) == best.label
        assert answers[best.label] == pytest.approx(best.probability, rel=TOLERANCE)
        assert sorted(answers) == sorted(LABELS)
        assert sum(answers.values()) == pytest.approx(1)


def read_by_pieces(tokenizer: Path) -> None:
    """Have the words of a tiny tokenizer in a form that Kotlin reads."""
    told = json.loads(tokenizer.read_text())
    pieces = {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    told["model"] = pieces | {"unk_token": "[UNK]", "vocab": told["model"]["vocab"]}
    told["pre_tokenizer"] = {"type": "BertPreTokenizer"}
    tokenizer.write_text(json.dumps(told))


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_examples_of_each_task_are_scored_as_python_scores_them(family: str, tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", family)
    read_by_pieces(model / "tokenizer.json")
    bundle = export_family(family, model, tmp_path / "bundle", runtimes=("onnx", "android"))
    labels = bundle.manifest.labels or [" ".join(WORDS[:2]), " ".join(WORDS[3:7]), f"{WORDS[8]} [UNK]"]
    rows = [(" ".join(WORDS[place : 2 * place + 1]) + " and so on", labels[place % 3]) for place in range(10)]
    rng = np.random.default_rng(5)
    spec = bundle.manifest.adapter
    factors = {
        module.name: LoraFactors(
            rng.normal(0, 0.3, (2, module.in_features)).astype(np.float32),
            rng.normal(0, 0.3, (module.out_features, 2)).astype(np.float32),
        )
        for module in spec.modules
    }
    adapter = Adapter(spec, factors)
    (tmp_path / "adapter.safetensors").write_bytes(adapter_to_bytes(adapter))
    files = (tmp_path / "adapter.safetensors", write_rows(tmp_path / "rows.tsv", rows))
    said = said_by("ort.ScoresKt", tmp_path / "bundle", *files).split()

    settings = TrainingSettings(batch_size=4, max_tokens=TOKENS)
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put_many([Example(text, label) for text, label in rows])
        trainer = open_trainer(OnnxRuntime, bundle, adapter, settings, threads=1)
        expected = score(
            trainer, store, bundle, settings, seed=3, max_seconds=math.inf, may_go_on=lambda: None
        )
    assert int(said[0]) == expected.example_count == 10
    assert float(said[1]) == pytest.approx(expected.loss, rel=TOLERANCE)
    assert said[2] == ("null" if expected.correct_count is None else str(expected.correct_count))
    assert (family == "bert") == (expected.correct_count is not None)
