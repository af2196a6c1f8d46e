"""Intents under MiniLM with frozen prototypes, so that adapters are all that learns; scored by accuracy."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.data.labelled_text import Dataset, load_labelled_text
from benchmarks.data.partition import stratified_sample
from benchmarks.demo.model import model_folder
from benchmarks.demo.scoring import Scorer
from benchmarks.tasks.clients import deal, ranked
from benchmarks.tasks.task import WIDEST, Task
from edge_sdk.examples import Example
from export.bundle_writer import export_bundle
from hetlora.bundle import Bundle, open_bundle
from hetlora.errors import DataError

CONCENTRATION: Final = 0.1
SCORED: Final = 800
MAX_TOKENS: Final = 24


def banking(data: Path, scratch: Path, clients: int, seed: int) -> Task:
    """BANKING77: 77 intents of a bank's customers, dealt to clients by a Dirichlet draw for each intent."""
    dataset = load_labelled_text(data)
    return _task("intents", dataset, deal(dataset.train, clients, CONCENTRATION, seed), scratch, seed)


def domains(data: Path, scratch: Path, clients: int, seed: int) -> Task:
    """CLINC150: 150 intents, each client those of one of ten domains, which no other has."""
    try:
        by_domain = json.loads((data / "domains.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("no domains there", got=error, expected="CLINC150's domains.json") from error
    dataset = load_labelled_text(data)
    # Its labels have underscores where those of the domains may have spaces.
    owner = {label.replace(" ", "_"): name for name, labels in by_domain.items() for label in labels}
    return _task("domains", dataset, _by(owner, dataset.train), scratch, seed)


def scenarios(data: Path, scratch: Path, clients: int, seed: int) -> Task:
    """HWU64: 64 intents for a home assistant, each client those of one of 18 scenarios: 175 to 1,685 rows."""
    dataset = Dataset(utterances(data / "train"), utterances(data / "test"))
    owner = {label: label.partition("_")[0] for label in dataset.labels}
    return _task("scenarios", dataset, _by(owner, dataset.train), scratch, seed)


def utterances(folder: Path) -> list[Example]:
    """A part of HWU64: every utterance with its scenario and intent as its label.

    Raises:
        DataError: there are none.
    """
    found = []
    try:
        for path in sorted(folder.glob("*.csv")):
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file, delimiter=";"):
                    text = row["answer_from_anno"].strip()
                    if text:
                        found.append(Example(text, f"{row['scenario']}_{row['intent']}"))
    except (OSError, KeyError, AttributeError) as error:
        raise DataError(f"{folder.name} is no part of HWU64", got=error) from error
    if not found:
        raise DataError("no utterances there", got=folder.name, expected="HWU64's CSV files")
    return found


def _by(owner: dict[str, str], examples: Sequence[Example]) -> list[list[Example]]:
    """The examples of each owner, owners in alphabetical order."""
    strange = sorted({example.label for example in examples} - owner.keys())
    if strange:
        raise DataError("labels of no client", got=", ".join(strange)[:200])
    held: dict[str, list[Example]] = {name: [] for name in sorted({*owner.values()})}
    for example in examples:
        held[owner[example.label]].append(example)
    return list(held.values())


def _task(name: str, dataset: Dataset, held: Sequence[Sequence[Example]], scratch: Path, seed: int) -> Task:
    bundle = _bundle(scratch / name, dataset.labels)
    each = max(1, SCORED // len(dataset.labels))
    held_out, _ = stratified_sample(dataset.test, each, np.random.default_rng(0))
    scorer = Scorer(bundle, held_out)
    held_by = ranked(held, seed)
    return Task(bundle, model_folder(), held_by, scorer.accuracy, scorer.share_right, "accuracy")


def _bundle(folder: Path, labels: Sequence[str]) -> Bundle:
    if (folder / "manifest.json").is_file():
        return open_bundle(folder)
    return export_bundle(
        str(model_folder()),
        folder,
        labels={name: name.replace("_", " ") for name in labels},
        targets=("query", "key", "value", "attention.output.dense"),
        max_rank=WIDEST,
        max_tokens=MAX_TOKENS,
    )
