"""How does one training step of a 135M decoder compare with PyTorch + PEFT in time and memory?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Final, get_args

import typer
from rich.table import Table

from benchmarks.harness import RESULTS, begin, finish, peer_python, pinned
from benchmarks.llama import SMOLLM_135M, export_llama, write_llama
from benchmarks.options import (
    Layers,
    Pairs,
    Quick,
    Rank,
    Results,
    Seed,
    Steps,
    WarmUp,
    choices_of,
    counts_of,
    values_of,
)
from benchmarks.peers.training_step import NAME, PACKAGES
from benchmarks.step_comparison import StepRow, compare
from benchmarks.step_runs import Plan, Variant
from benchmarks.step_shapes import Shape
from hetlora.cli.output import JsonFlag, stderr, stdout
from hetlora.manifest import Precision, Recompute

# With weights in a quarter of the bytes activations are what is left to save, and the time is there: even
# recomputed, a step takes less than PyTorch's. In float32 a step holds no more than PyTorch's as it is.
RECOMPUTE: Final[Mapping[Precision, Recompute]] = {
    "float32": "none",
    "float16": "none",
    "bfloat16": "none",
    "int8": "selective",
    "int4": "selective",
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def bench_step(
    base: Annotated[
        str, typer.Option(help="How our frozen weights are stored, comma-separated: float32, int8, int4, ...")
    ] = "float32,int8",
    recompute: Annotated[
        str,
        typer.Option(
            help="Activations that our backward pass makes again, comma-separated: none, selective, layer.",
            show_default="none; selective where weights are quantised",
        ),
    ] = "",
    shape: Annotated[
        str, typer.Option(help="Texts x tokens of a batch, comma-separated.")
    ] = "1x128,1x512,4x256",
    threads: Annotated[str, typer.Option(help="Threads of each process, comma-separated.")] = "1,2",
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
    """Take the same AdamW steps with our bundles and with PyTorch + PEFT, each in a process of its own.

    The model has SmolLM-135M's configuration and random weights. The peer works in float32 with gradient
    checkpointing, once with eager and once with sdpa attention: its faster one counts for time, its leaner
    one for memory. Both sides must show the same first loss. The first time, the peer's environment of
    1.3 GB is installed in `.cache/peers`, which takes a minute or more.

    Read: `rows` (`time_ratio` is the peer's seconds over ours, `cpu_time_ratio` the same in processor time,
    which a busy machine moves less, `memory_ratio` our peak resident memory over the peer's, start to end).

    Example: `hetlora bench step --quick --shape 1x128 --threads 1`
    """
    beginning = begin()
    shapes = [Shape.parse(text) for text in values_of(shape, "shape")]
    thread_counts = counts_of(threads, "threads")
    variants = variants_of(base, recompute)
    plan = Plan(rank, warm_up, 2 if quick else steps, 1 if quick else pairs, seed)
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        work = Path(scratch)
        requirements = pinned(*PACKAGES)
        _tell(f"preparing {NAME}")
        peer = peer_python("torch-peft", requirements)
        size = replace(SMOLLM_135M, num_hidden_layers=layers)
        model = write_llama(work / "llama", size, seed=seed)
        longest = max(one.tokens for one in shapes)
        bundles = []
        for variant in variants:
            _tell(f"exporting {variant}")
            out, kind = work / str(variant), (variant.base, variant.recompute)
            bundles.append(export_llama(model, out, *kind, max_rank=rank, max_tokens=longest))
        rows: list[StepRow] = []
        for one, count in product(shapes, thread_counts):
            _tell(f"steps of {one} tokens, {count} threads")
            found = compare(bundles, model, one, count, plan, work / f"{one}-{count}", peer=peer)
            for row in found:
                _tell(f"  {row.base}: time ratio {row.time_ratio:.2f}, memory ratio {row.memory_ratio:.2f}")
            rows += found
    if not as_json:
        stdout.print(_table(rows))
    figures = {
        "model": asdict(size),
        "plan": asdict(plan),
        "peer": {"name": NAME, "versions": requirements, "gradient_checkpointing": True},
        "rows": [asdict(row) for row in rows],
    }
    packages = ("onnxruntime-training-cpu", "numpy")
    finish("step", figures, beginning=beginning, seed=seed, packages=packages, results=results)


def variants_of(bases: str, ways: str) -> list[Variant]:
    """What to export: each base with each way of recomputing or, if none is given, with its own.

    Raises:
        SettingsError: no base, or an unknown one or way.
    """
    chosen = choices_of(ways, "recompute", get_args(Recompute)) if ways else []
    bases_chosen: list[Precision] = choices_of(bases, "base", get_args(Precision))
    return [Variant(base, way) for base in bases_chosen for way in chosen or [RECOMPUTE[base]]]


def _tell(progress: str) -> None:
    stderr.print(progress, style="dim", markup=False)


def _table(rows: Sequence[StepRow]) -> Table:
    table = Table(title=f"One training step, ours and {NAME}", title_justify="left")
    for heading in ("base", "recompute", "batch", "threads"):
        table.add_column(heading)
    for heading in ("ours s", "peer s", "time ratio", "ours MB", "peer MB", "memory ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.base,
            row.recompute,
            row.shape,
            str(row.threads),
            f"{row.seconds:.2f}",
            f"{row.peer_seconds:.2f} ({row.peer_attention})",
            f"{row.time_ratio:.2f}",
            f"{row.peak_bytes / 1e6:.0f}",
            f"{row.peer_peak_bytes / 1e6:.0f} ({row.peer_leanest_attention})",
            f"{row.memory_ratio:.2f}",
        )
    return table
