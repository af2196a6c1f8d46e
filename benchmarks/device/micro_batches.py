"""Step time and peak memory by micro-batch: what a device gains that takes a batch in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from benchmarks.device.process import batch_in_words, run_process, step_plan
from benchmarks.device.section import Section, Setting
from benchmarks.step_shapes import Shape
from hetlora.bundle import Bundle

WARM_UP = 2


@dataclass(frozen=True, slots=True)
class MicroBatchRow:
    """A step over the whole batch in parts of `micro_batch` rows; ratios are over the batch in one part."""

    model: str
    base: str  # precision of the frozen weights
    rank: int
    shape: str
    micro_batch: int
    step_seconds: float
    peak_bytes: int
    time_ratio: float
    memory_ratio: float


def micro_batch_section(setting: Setting, ranks: Sequence[int], shapes: Sequence[Shape]) -> Section:
    """Take steps at the last rank and batch, in one part, in halves, and so on to single rows."""
    rows: list[MicroBatchRow] = []
    for name, bundle in setting.bundles.items():
        setting.tell(f"{name}: micro-batches")
        rows += _rows(name, bundle, ranks[-1], shapes[-1], setting)
    return Section({"micro_batches": [asdict(row) for row in rows]}, _table(rows))


def _rows(model: str, bundle: Bundle, rank: int, shape: Shape, setting: Setting) -> Iterator[MicroBatchRow]:
    whole: tuple[float, int] | None = None
    for micro_batch in parts_of(shape.batch):
        told = run_process(
            "step",
            bundle,
            rank,
            shape,
            setting,
            steps=setting.steps,
            step=asdict(step_plan(bundle, shape, rank, micro_batch)),
            is_trial=False,
            warm_up=WARM_UP,
        )
        # The process takes steps over one part; parts of one step are all alike.
        seconds, peak_bytes = told["median_seconds"] * shape.batch / micro_batch, int(told["peak_bytes"])
        whole = whole or (seconds, peak_bytes)
        yield MicroBatchRow(
            model,
            bundle.manifest.base_precision,
            rank,
            batch_in_words(bundle, shape),
            micro_batch,
            round(seconds, 4),
            peak_bytes,
            round(seconds / whole[0], 3),
            round(peak_bytes / whole[1], 3),
        )


def parts_of(batch: int) -> list[int]:
    """The batch, and its halves as long as these are whole: 8, 4, 2, 1."""
    sizes = [batch]
    while sizes[-1] % 2 == 0:
        sizes.append(sizes[-1] // 2)
    return sizes


def _table(rows: Sequence[MicroBatchRow]) -> Table:
    table = Table(title="Micro-batches", title_justify="left")
    table.add_column("model")
    for heading in ("base", "rank", "batch", "in parts of", "seconds", "peak MB", "time", "memory"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            row.base,
            str(row.rank),
            row.shape,
            str(row.micro_batch),
            f"{row.step_seconds:.3f}",
            f"{row.peak_bytes / 1e6:.0f}",
            f"{row.time_ratio:.2f}",
            f"{row.memory_ratio:.2f}",
        )
    return table
