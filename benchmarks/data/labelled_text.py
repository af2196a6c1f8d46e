"""Labelled text: a data set, and the user's own data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edge_sdk.examples import Example
from edge_sdk.examples.labelled_files import READERS, Parts, read_parts
from hetlora.errors import DataError

TEST_SHARE: Final = 0.2
# CLINC150's file with all its parts; the folder also holds JSON files without examples.
_WHOLE_SET: Final = "data_full.json"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples to train on, and examples to score with that no device holds."""

    train: list[Example]
    test: list[Example]

    @property
    def labels(self) -> list[str]:
        """The labels of the training part, in alphabetical order."""
        return sorted({example.label for example in self.train})


def load_labelled_text(path: Path, *, seed: int = 0) -> Dataset:
    """Read a file or folder of labelled text.

    A file is of one of the kinds in `edge_sdk.examples.labelled_files`; a folder holds `train` and perhaps
    `test` as such files, or CLINC150's `data_full.json`.

    Without a test part, TEST_SHARE of each label is drawn for it by `seed`; a label with a single example
    stays in training.

    Raises:
        DataError: nothing there that can be read, a row without text or label, fewer than two labels, or a
            test label without training examples.
    """
    try:
        parts = _read_folder(path) if path.is_dir() else read_parts(path)
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read",
            got=error.strerror,
            expected="a file or folder of labelled text",
        ) from error
    train, test = (parts.get(part, []) for part in ("train", "test"))
    if not test:
        test, train = draw_by_label(train, _test_count, np.random.default_rng(seed))
    dataset = Dataset(train, test)
    if len(dataset.labels) < 2:
        raise DataError(
            f"labels in {path}",
            got=f"{len(dataset.labels)} in {len(train)} training examples",
            expected="at least 2",
        )
    untrained = sorted({example.label for example in test} - set(dataset.labels))
    if untrained:
        raise DataError(
            f"test labels in {path}",
            got=", ".join(untrained)[:200],
            expected="labels of the training part",
        )
    return dataset


def _read_folder(folder: Path) -> Parts:
    if (folder / _WHOLE_SET).is_file():
        return read_parts(folder / _WHOLE_SET)
    train, test = (_first_file(folder, part) for part in ("train", "test"))
    if train is None:
        raise DataError(
            f"no labelled text in the folder {folder}",
            got=", ".join(sorted(entry.name for entry in folder.iterdir()))[:200] or "an empty folder",
            expected=f"train with {' or '.join(READERS)}, or {_WHOLE_SET}",
        )
    return {**read_parts(train), **({"test": read_parts(test)["train"]} if test else {})}


def _first_file(folder: Path, part: str) -> Path | None:
    candidates = (folder / f"{part}{suffix}" for suffix in READERS)
    return next((path for path in candidates if path.is_file()), None)


def draw_by_label(
    examples: Sequence[Example], count_of: Callable[[int], int], rng: np.random.Generator
) -> tuple[list[Example], list[Example]]:
    """Draw `count_of(n)` of the n examples of each label; return the drawn and the rest, both in order."""
    positions: dict[str, list[int]] = {}
    for position, example in enumerate(examples):
        positions.setdefault(example.label, []).append(position)
    drawn: set[int] = set()
    for label in sorted(positions):
        drawn.update(rng.permutation(positions[label])[: count_of(len(positions[label]))].tolist())
    return (
        [example for position, example in enumerate(examples) if position in drawn],
        [example for position, example in enumerate(examples) if position not in drawn],
    )


def _test_count(available: int) -> int:
    """TEST_SHARE, but at least one, and at least one left to train on."""
    return min(max(1, round(TEST_SHARE * available)), available - 1)
