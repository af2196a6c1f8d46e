"""Pictures of benchmarks that draw none themselves."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.answer import Bars


def draw(bars: Bars, path: Path) -> None:
    """Draw horizontal bars as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    height = 0.8 + 0.24 * len(bars.labels)
    figure, axes = pyplot.subplots(figsize=(8, height), layout="constrained")
    drawn = axes.barh(range(len(bars.labels)), bars.values)
    axes.bar_label(drawn, [f"{value:.3g}" for value in bars.values], padding=3, fontsize=8)
    axes.set_yticks(range(len(bars.labels)), bars.labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(bars.unit)
    axes.margins(x=0.12)
    if bars.line is not None:
        axes.axvline(bars.line, linestyle="--", color="black", linewidth=0.8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
