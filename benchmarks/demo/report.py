"""What the demo leaves behind: accuracy by round as a picture, and everything as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

mpl.use("Agg")


@dataclass(frozen=True, slots=True)
class Curve:
    """Held-out accuracy of one run: before training, then after each round."""

    name: str
    accuracies: Sequence[float]
    ranks: Sequence[int]  # of the devices in the first round
    uploaded_bytes: int
    seconds: float


def draw_accuracy(untrained: float, curves: Sequence[Curve], held_out: int, path: Path) -> None:
    """Draw accuracy by round; the untrained model is a flat line."""
    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    axes = figure.subplots()
    last = max(len(curve.accuracies) for curve in curves) - 1
    axes.hlines(untrained, 0, last, colors="0.5", linestyles="dashed", label=f"no training: {untrained:.1%}")
    for curve in curves:
        label = f"{curve.name}: {curve.accuracies[-1]:.1%}, {curve.uploaded_bytes / 1e6:.1f} MB uploaded"
        axes.plot(range(len(curve.accuracies)), curve.accuracies, marker="o", label=label)
    axes.set_xlabel("rounds committed")
    axes.set_ylabel(f"accuracy on {held_out} held-out passages")
    axes.set_xticks(range(last + 1))
    axes.yaxis.set_major_locator(MultipleLocator(0.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small", frameon=False)
    axes.set_title("One global adapter, trained by devices of unequal rank", loc="left", fontsize="medium")
    figure.savefig(path, dpi=150)


def write_json(path: Path, curves: Sequence[Curve], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Write and return the demo's result."""
    result = {**figures, "runs": [asdict(curve) for curve in curves]}
    path.write_text(json.dumps(result, indent=2) + "\n")
    return result
