"""Two learning problems on real data: intents of bank customers, and the turns of twenty personas."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import numpy as np

from benchmarks.data.labelled_text import load_labelled_text
from benchmarks.data.partition import stratified_sample
from benchmarks.demo.model import model_folder
from benchmarks.demo.scoring import Scorer
from benchmarks.rules.clients import Client, deal, ranked
from edge_sdk.batching.collation import TextCollation
from edge_sdk.batching.tokens import text_encoder
from edge_sdk.examples import Example
from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxModel
from export.bundle_writer import export_bundle
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle, open_bundle
from hetlora.errors import DataError
from hetlora.graph_names import IGNORED_LABEL, LABELS

Name = Literal["intents", "personas"]
# An adapter and what is frozen beside it are scored as one; the bundle must hold both.
WIDEST: Final = 128
SCORED_PER_INTENT: Final = 10
HELD_OUT_TURNS: Final = 0.15
SCORED_TURNS: Final = 400
CONCENTRATION: Final = 0.1


@dataclass(frozen=True, slots=True)
class Task:
    """A bundle, who holds which data, and how good an adapter is: the higher the better."""

    bundle: Bundle
    clients: Sequence[Client]
    score: Callable[[Adapter | None], float]
    metric: str


def open_task(name: Name, data: Path, scratch: Path, clients: int, seed: int) -> Task:
    """A task over the data set in `data`; its bundle is exported into `scratch` when it is first asked for.

    Raises:
        DataError: the data cannot be read.
        DependencyMissing: the pretrained model of the intents is not installed.
    """
    return _intents(data, scratch, clients, seed) if name == "intents" else _personas(data, scratch, seed)


def _intents(data: Path, scratch: Path, clients: int, seed: int) -> Task:
    """BANKING77 under MiniLM with frozen prototypes; scored by accuracy on ten queries of each intent."""
    dataset = load_labelled_text(data)
    if not (scratch / "intents" / "manifest.json").is_file():
        export_bundle(
            str(model_folder()),
            scratch / "intents",
            labels={name: name.replace("_", " ") for name in dataset.labels},
            targets=("query", "key", "value", "attention.output.dense"),
            max_rank=WIDEST,
            max_tokens=24,
        )
    bundle = open_bundle(scratch / "intents")
    held_out, _ = stratified_sample(dataset.test, SCORED_PER_INTENT, np.random.default_rng(0))
    dealt = deal(dataset.train, clients, CONCENTRATION, seed)
    return Task(bundle, dealt, Scorer(bundle, held_out).accuracy, "accuracy")


def _personas(data: Path, scratch: Path, seed: int) -> Task:
    """LoCoMo under a small decoder, one client a persona; scored by minus the loss of held-out turns."""
    if not (scratch / "personas" / "manifest.json").is_file():
        export_bundle(
            str(data.parent.parent / "models" / "tiny-lm"),
            scratch / "personas",
            task="text-generation",
            targets=("q_proj", "k_proj", "v_proj", "o_proj"),
            max_rank=WIDEST,
            max_tokens=48,
        )
    bundle = open_bundle(scratch / "personas")
    rng = np.random.default_rng(0)
    held: list[list[Example]] = []
    held_out: list[Example] = []
    for turns in personas_of(data):
        kept = max(1, round(HELD_OUT_TURNS * len(turns)))
        held.append(turns[:-kept])
        held_out += turns[-kept:]
    chosen = [held_out[place] for place in rng.permutation(len(held_out))[:SCORED_TURNS]]
    return Task(bundle, ranked(held, seed), _turn_scorer(bundle, chosen), "minus loss")


def personas_of(folder: Path) -> list[list[Example]]:
    """What each persona answered, turn by turn: the turn before is the text, the answer the label.

    Raises:
        DataError: no chat can be read there.
    """
    found: list[list[Example]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            chat = json.loads(path.read_text(encoding="utf-8"))
            sessions = sorted((key for key in chat if re.fullmatch(r"session_\d+", key)), key=_number)
            turns = [turn for key in sessions for turn in chat[key]]
            for speaker in (chat["speaker_a"], chat["speaker_b"]):
                found.append(
                    [
                        Example(before["text"], " " + turn["text"])
                        for before, turn in pairwise(turns)
                        if turn["speaker"] == speaker and before["text"].strip() and turn["text"].strip()
                    ]
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path.name} is no chat of LoCoMo", got=error) from error
    if not found:
        raise DataError("no chats there", got=folder.name, expected="LoCoMo's JSON files")
    return found


def _number(key: str) -> int:
    return int(key.rpartition("_")[2])


def _turn_scorer(bundle: Bundle, turns: Sequence[Example]) -> Callable[[Adapter | None], float]:
    collate = TextCollation(bundle.manifest.task, (), text_encoder(bundle))
    ordered = sorted(turns, key=lambda turn: len(turn.text) + len(turn.label))
    batches = [collate(ordered[start : start + 16]) for start in range(0, len(ordered), 16)]
    model = OnnxModel(bundle, threads=1)

    def score(adapter: Adapter | None) -> float:
        sums = [_loss_sum(batch, model.logits(batch, adapter=adapter)) for batch in batches]
        return -sum(loss for loss, _ in sums) / sum(count for _, count in sums)

    return score


def _loss_sum(batch: Batch, logits: np.ndarray) -> tuple[float, int]:
    """The sum of the cross entropy over the tokens that count, in nats, and their number."""
    labels = batch[LABELS]
    counts = labels[:, 1:] != IGNORED_LABEL
    rows, wanted = logits[:, :-1][counts].astype(np.float64), labels[:, 1:][counts]
    rows -= rows.max(axis=1, keepdims=True)
    picked = rows[np.arange(len(wanted)), wanted]
    loss = float((np.log(np.exp(rows).sum(axis=1)) - picked).sum())
    assert math.isfinite(loss)
    return loss, len(wanted)
