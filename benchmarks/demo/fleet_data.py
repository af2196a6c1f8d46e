"""Which passages each simulated device holds, and which are held out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.data.labelled_text import load_labelled_text
from benchmarks.data.library_parts import LIBRARY_PARTS
from benchmarks.data.partition import partition_by_label, stratified_sample
from benchmarks.data.passages import standard_library_passages
from edge_sdk.examples import Example

HELD_OUT: Final = 240
EXAMPLES_PER_DEVICE: Final = 200
LABELS_PER_DEVICE: Final = 3


@dataclass(frozen=True, slots=True)
class FleetData:
    """`labels` are the describing texts by name."""

    source: str
    labels: Mapping[str, str]
    devices: Sequence[Sequence[Example]]
    held_out: Sequence[Example]

    def summary(self) -> str:
        """One line for people."""
        held = sorted(len(Counter(example.label for example in examples)) for examples in self.devices)
        return (
            f"{self.source}: {len(self.labels)} classes; {len(self.devices)} devices hold "
            f"{sum(map(len, self.devices))} passages, each of {held[0]} to {held[-1]} classes; "
            f"{len(self.held_out)} passages are held out."
        )


def load_fleet_data(path: Path | None, devices: int, seed: int) -> FleetData:
    """The standard library's documentation, or the user's own labelled text, dealt to the devices.

    Raises:
        DataError: the user's data cannot be read.
    """
    rng = np.random.default_rng(seed)
    if path is None:
        source = "Documentation of the Python standard library"
        labels = {part.label: part.description for part in LIBRARY_PARTS}
        held_out, train = stratified_sample(
            standard_library_passages(), math.ceil(HELD_OUT / len(labels)), rng
        )
    else:
        source = str(path)
        dataset = load_labelled_text(path)
        train = list(dataset.train)
        names = sorted({example.label for example in train})
        labels = {name: name.replace("_", " ") for name in names}
        held_out, _ = stratified_sample(dataset.test, math.ceil(HELD_OUT / len(names)), rng)
    per_device = max(LABELS_PER_DEVICE, math.ceil(len(labels) / devices))
    parts = partition_by_label(
        train,
        devices,
        min(per_device, len(labels)),
        rng,
        examples_per_device=max(EXAMPLES_PER_DEVICE, 8 * per_device),
    )
    return FleetData(source, labels, parts, held_out)
