"""The public data sets that the demo and the benchmarks take, where a copy of them is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.data.labelled_text import load_labelled_text

# Beside a checkout, or wherever the variable says; none of it is part of the project.
FOLDER = Path(os.environ.get("HETLORA_DATA_SETS", Path(__file__).parents[3].parent / "shared" / "data"))


@pytest.mark.parametrize(
    ("name", "train", "test", "labels"),
    [("banking77", 10_003, 3_080, 77), ("clinc150", 15_000, 4_500, 150)],
)
def test_data_set_is_read_whole(name: str, train: int, test: int, labels: int) -> None:
    folder = FOLDER / name
    if not folder.is_dir():
        pytest.skip(f"no copy of {name} in {FOLDER}; set HETLORA_DATA_SETS")

    dataset = load_labelled_text(folder)

    assert (len(dataset.train), len(dataset.test), len(dataset.labels)) == (train, test, labels)
