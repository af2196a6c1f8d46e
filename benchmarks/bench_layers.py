"""How far do time and memory of a training step fall when only the last layers train?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.harness import RESULTS, begin, finish, median_ratio
from benchmarks.llama import SMOLLM_135M, LlamaSize, export_llama, write_llama
from benchmarks.options import Layers, Pairs, Quick, Rank, Results, Seed, Steps, Threads, WarmUp, counts_of
from benchmarks.step_runs import (
    Command,
    Plan,
    StepRun,
    Variant,
    column_of,
    median_of,
    our_command,
    run_in_turn,
    write_inputs,
)
from benchmarks.step_shapes import Shape
from hetlora.cli.output import JsonFlag, stderr, stdout
from hetlora.manifest import Precision, Recompute

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@dataclass(frozen=True, slots=True)
class LayersRow:
    """What a step costs where the last so many layers train; shares are of the row with the most layers."""

    last_layers: int
    seconds: float
    peak_bytes: int
    time_share: float
    memory_share: float
    runs: Sequence[StepRun]


@app.command()
def bench_layers(
    last_layers: Annotated[
        str, typer.Option(help="How many of the last layers train, comma-separated.")
    ] = "30,20,10,5,1",
    base: Annotated[Precision, typer.Option(help="How the frozen weights are stored.")] = "float32",
    recompute: Annotated[Recompute, typer.Option(help="Activations that are made again.")] = "none",
    shape: Annotated[str, typer.Option(help="Texts x tokens of a batch.")] = "4x256",
    threads: Threads = 1,
    rank: Rank = 8,
    warm_up: WarmUp = 2,
    steps: Steps = 5,
    pairs: Pairs = 2,
    layers: Layers = SMOLLM_135M.num_hidden_layers,
    quick: Quick = False,
    seed: Seed = 0,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Train LoRA on the last k of 30 layers of a 135M decoder, each k in a process of its own.

    The backward pass ends at the first layer that trains: those before it keep no activations, and take only
    the forward part of the time.

    Read: `rows` (`time_share` and `memory_share` are of the row with the most layers).

    Example: `hetlora bench layers --quick --shape 1x128`
    """
    beginning = begin()
    counts = sorted(set(counts_of(last_layers, "last-layers")), reverse=True)
    parsed = Shape.parse(shape)
    variant = Variant(base, recompute)
    plan = Plan(rank, warm_up, 2 if quick else steps, 1 if quick else pairs, seed)
    size = replace(SMOLLM_135M, num_hidden_layers=layers)
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        commands = _prepare(size, counts, variant, parsed, threads, plan, Path(scratch))
        stderr.print(f"steps of {parsed} tokens", style="dim")
        runs = run_in_turn(commands, plan.pairs)
    rows = rows_of({int(count): found for count, found in runs.items()})
    if not as_json:
        stdout.print(_table(rows))
    figures = {
        "model": asdict(size),
        "plan": asdict(plan),
        **asdict(variant),
        "shape": str(parsed),
        "threads": threads,
        "rows": [asdict(row) for row in rows],
    }
    packages = ("onnxruntime-training-cpu", "numpy")
    finish("layers", figures, beginning=beginning, seed=seed, packages=packages, results=results)


def rows_of(runs: Mapping[int, Sequence[StepRun]]) -> list[LayersRow]:
    """Rows by falling number of layers, from the runs of each number."""
    whole = runs[max(runs)]
    return [
        LayersRow(
            count,
            round(median_of(found, "seconds"), 4),
            int(median_of(found, "peak_bytes")),
            _share(found, whole, "seconds"),
            _share(found, whole, "peak_bytes"),
            found,
        )
        for count, found in sorted(runs.items(), reverse=True)
    ]


def _share(part: Sequence[StepRun], whole: Sequence[StepRun], name: str) -> float:
    return round(median_ratio(column_of(part, name), column_of(whole, name)), 3)


def _prepare(
    size: LlamaSize,
    counts: Sequence[int],
    variant: Variant,
    shape: Shape,
    threads: int,
    plan: Plan,
    work: Path,
) -> dict[str, Command]:
    model = write_llama(work / "llama", size, seed=plan.seed)
    commands = {}
    for count in counts:
        stderr.print(f"exporting the last {count} layers", style="dim")
        bundle = export_llama(
            model,
            work / f"bundle-{count}",
            variant.base,
            variant.recompute,
            max_rank=plan.rank,
            max_tokens=shape.tokens,
            last_layers=count,
        )
        folder = work / f"inputs-{count}"
        shared = write_inputs(bundle.manifest, shape, threads, plan, folder)
        commands[str(count)] = our_command(shared, bundle, folder)
    return commands


def _table(rows: Sequence[LayersRow]) -> Table:
    table = Table(title="One training step of the last layers", title_justify="left")
    for heading in ("layers", "seconds", "share of time", "peak MB", "share of memory"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row.last_layers),
            f"{row.seconds:.2f}",
            f"{row.time_share:.0%}",
            f"{row.peak_bytes / 1e6:.0f}",
            f"{row.memory_share:.0%}",
        )
    return table
