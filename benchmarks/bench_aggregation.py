"""How fast, and in how much memory, does a service aggregate adapters, beside Flower and dense SVDs?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.aggregation.crossover import CrossoverRow
from benchmarks.aggregation.measurements import Measurements, Plan, figures_of
from benchmarks.aggregation.runs import CommitRow, FlowerRow, StreamRow
from benchmarks.harness import RESULTS, begin, finish
from benchmarks.options import Results, Seed
from hetlora.cli.output import JsonFlag, stdout

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def bench_aggregation(
    adapters: Annotated[int, typer.Option(min=1, help="Updates of the longest stream.")] = 100_000,
    pairs: Annotated[int, typer.Option(min=1, help="How often ours and Flower run, in turn.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One pair, one rank, short streams.")] = False,
    flower: Annotated[bool, typer.Option(help="Measure Flower, too.")] = True,
    seed: Seed = 0,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Aggregate updates of a model of Gemma-3-270M's shape: 72 modules, ranks 4, 8, 16 and 32.

    Beside Flower's own weighted mean of equal ranks; beside FlexLoRA with dense products and full SVDs, and
    FLoRA with dense products; and alone, a stream of mixed ranks by HetLoRA. Comparisons run on one core
    each, in turn. The first time, environments for Flower and PyTorch (1.5 GB) are installed in
    `.cache/peers`.

    Read: `ratio_to_flower` (our adapters per second over Flower's, both by the mean weighted by examples, at
    rank 8) and `ratio_to_flower_by_hetlora` (ours by HetLoRA, which takes every norm first),
    `svd_ratio_to_dense` (the published way's seconds over ours, of the worst of three kinds of updates),
    `flora_ratio_to_dense_by_kind` (the same of FLoRA's merged product, by the kind of updates),
    `adapters_per_second` and `peak_rss_bytes_by_count` (streams of mixed ranks by HetLoRA),
    `fraction_of_limit` (bytes aggregated a second over bytes that are only read, multiplied and added).

    Example: `hetlora bench aggregation --quick`
    """
    beginning = begin()
    plan = Plan(adapters=adapters, pairs=pairs)
    plan = plan.quick() if quick else plan
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        measured = Measurements(plan, Path(scratch), seed)
        beside = measured.flower() if flower else []
        commits, crossovers = measured.commits(), measured.crossovers()
        streams, limits, downlink = measured.streams(), measured.limits(), measured.downlink()
    figures = figures_of(plan, beside, commits, crossovers, streams, limits, downlink)
    if not as_json:
        _show(beside, commits, crossovers, streams)
    packages = ("numpy", "scipy", "threadpoolctl")
    finish("aggregation", figures, beginning=beginning, seed=seed, packages=packages, results=results)


def _show(
    flower: Sequence[FlowerRow],
    commits: Sequence[CommitRow],
    crossovers: Sequence[CrossoverRow],
    streams: Sequence[StreamRow],
) -> None:
    headings = "rule", "rank", "ours", "Flower", "ratio", "by CPU time"
    beside = _table("Updates a second, one core each", *headings)
    for row in flower:
        rates = f"{row.adapters_per_second:.0f}", f"{row.peer_adapters_per_second:.0f}"
        beside.add_row(row.rule, str(row.rank), *rates, f"{row.ratio:.2f}", f"{row.cpu_ratio:.2f}")
    dense = _table(
        "Commits of products, one core each", "rule", "updates", "ours s", "dense s", "ratio", "by CPU time"
    )
    for commit in commits:
        seconds = f"{commit.seconds:.2f}", f"{commit.peer_seconds:.1f}"
        dense.add_row(commit.rule, commit.kind, *seconds, f"{commit.ratio:.1f}", f"{commit.cpu_ratio:.1f}")
    kept = _table(
        "FlexLoRA's sum of products, one core", "updates", "stack s", "MB", "sketch s", "MB", "off by"
    )
    for own in crossovers:
        stack = f"{own.stack_seconds:.2f}", f"{own.stack_peak_rss_bytes / 1e6:.0f}"
        sketch = f"{own.sketch_seconds:.2f}", f"{own.sketch_peak_rss_bytes / 1e6:.0f}"
        kept.add_row(f"{own.updates}, {own.chosen} taken", *stack, *sketch, f"{own.difference:.1e}")
    scale = _table("Streams of mixed ranks by HetLoRA", "updates", "engine", "workers", "a second", "peak MB")
    for one in streams:
        engine = f"{one.engine}, digests checked" if one.hashed else one.engine
        rate, peak = f"{one.adapters_per_second:.0f}", f"{one.peak_rss_bytes / 1e6:.0f}"
        scale.add_row(str(one.count), engine, str(one.workers), rate, peak)
    for table in (beside, dense, kept, scale):
        stdout.print(table)


def _table(title: str, *headings: str) -> Table:
    return Table(*headings, title=title, title_justify="left")
