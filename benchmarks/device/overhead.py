"""What the SDK adds to the runtime's own steps: a device's round beside bare ones, step by step."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.table import Table

from benchmarks.device.overhead_process import WARM_UP
from benchmarks.device.process import batch_in_words, run_process
from benchmarks.device.section import Section, Setting
from benchmarks.harness import median_ratio
from benchmarks.step_shapes import Shape
from hetlora.errors import HetloraError

PROCESSES: Final = 4
# Relative; both sides compute the same step.
_SAME_LOSS: Final = 1e-5


@dataclass(frozen=True, slots=True)
class OverheadRow:
    """One bundle at one rank and batch; shares are of a bare step's seconds, by the wall's clock and the
    processor's.

    `overhead` is all that the SDK adds to a step: the median over pairs of steps, less one (`Trainer.step`,
    the event, the look at all conditions), and `checkpoints`, what those that were kept took on average.
    Beside it: `data`, what reading a batch takes, which a bare loop has to do as well.
    """

    model: str
    rank: int
    shape: str
    bare_seconds: float
    overhead: float
    processor_overhead: float
    checkpoints: float
    data: float


def overhead_section(setting: Setting, ranks: Sequence[int], shapes: Sequence[Shape]) -> Section:
    """Measure every bundle at the first rank, with the first batch and the last, in several processes."""
    rows = []
    for name, bundle in setting.bundles.items():
        for shape in dict.fromkeys((shapes[0], shapes[-1])):
            setting.tell(f"{name} {shape}: overhead")
            steps = WARM_UP + -(-setting.pairs // PROCESSES)
            told = [
                run_process("overhead", bundle, ranks[0], shape, setting, steps=steps)
                for _ in range(PROCESSES)
            ]
            rows.append(overhead_row(name, ranks[0], batch_in_words(bundle, shape), told))
    figures = {
        "overhead_max": max(row.overhead for row in rows),
        "processor_overhead_max": max(row.processor_overhead for row in rows),
        "overhead": [asdict(row) for row in rows],
    }
    return Section(figures, _table(rows))


def overhead_row(model: str, rank: int, shape: str, processes: Sequence[Mapping[str, Any]]) -> OverheadRow:
    """What processes told of their pairs of steps.

    Raises:
        HetloraError: the two sides did not take the same step.
    """
    for told in processes:
        losses = told["first_losses"]
        if abs(losses["sdk"] - losses["bare"]) > _SAME_LOSS * abs(losses["bare"]):
            raise HetloraError(f"{model}: first losses of the SDK and of bare steps differ", got=losses)
    wall, processor = _pooled(processes, "wall"), _pooled(processes, "processor")
    bare, kept = statistics.median(wall["bare"]), _checkpoints(wall)
    return OverheadRow(
        model,
        rank,
        shape,
        round(bare, 4),
        round(median_ratio(wall["sdk"], wall["bare"]) - 1 + kept, 4),
        round(median_ratio(processor["sdk"], processor["bare"]) - 1 + _checkpoints(processor), 4),
        round(kept, 4),
        round(statistics.median(wall["data"]) / bare, 4),
    )


def _pooled(processes: Sequence[Mapping[str, Any]], clock: str) -> dict[str, list[float]]:
    """Seconds by side of the pairs of all processes that count."""
    told = [process["seconds"][clock] for process in processes]
    return {side: [second for own in told for second in own[side][WARM_UP:]] for side in told[0]}


def _checkpoints(seconds: Mapping[str, Sequence[float]]) -> float:
    """What they took a step on average, in bare steps."""
    return statistics.mean(seconds["checkpoint"]) / statistics.median(seconds["bare"])


def _table(rows: Sequence[OverheadRow]) -> Table:
    table = Table(title="Overhead around a bare step", title_justify="left")
    table.add_column("model")
    for heading in ("rank", "batch", "bare ms", "overhead", "by processor", "of it checkpoints", "data"):
        table.add_column(heading, justify="right")
    for row in rows:
        shares = (row.overhead, row.processor_overhead, row.checkpoints, row.data)
        bare_ms = f"{1000 * row.bare_seconds:.1f}"
        table.add_row(row.model, str(row.rank), row.shape, bare_ms, *(f"{share:+.1%}" for share in shares))
    return table
