"""How near do the forecasts of peak memory and step time come on models that nobody fitted them with?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Final, get_args

import typer
from rich.table import Table

from benchmarks.harness import RESULTS, begin, finish
from benchmarks.llama import LlamaSize, export_llama, write_llama
from benchmarks.options import Pairs, Results, Seed, Threads, choices_of, counts_of, values_of
from benchmarks.step_runs import Plan, StepRun, Variant, median_of, our_command, run_in_turn, write_inputs
from benchmarks.step_shapes import Shape
from edge_sdk.planning.forecast import Forecast, StepPlan, forecast_round, training_rate
from edge_sdk.probe import take_probe
from hetlora.bundle import Bundle
from hetlora.cli.output import JsonFlag, stderr, stdout
from hetlora.cost import CostModel, StepSize
from hetlora.manifest import Precision, Recompute

SIZES: Final[Mapping[str, LlamaSize]] = {
    "23M": LlamaSize(
        hidden_size=320,
        intermediate_size=896,
        num_hidden_layers=14,
        num_attention_heads=5,
        num_key_value_heads=5,
        vocab_size=16000,
    ),
    "81M": LlamaSize(
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=22,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=32000,
    ),
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@dataclass(frozen=True, slots=True)
class ForecastRow:
    """One bundle at one rank and batch; an error is the forecast over what was measured, less one."""

    model: str
    base: Precision
    recompute: Recompute
    rank: int
    shape: str
    forecast_peak_bytes: int
    peak_bytes: int
    memory_error: float
    forecast_seconds: float
    seconds: float
    time_error: float
    counted: Mapping[str, int]  # what the forecast is made of, before the planner's constants


@app.command()
def bench_forecast(
    model: Annotated[str, typer.Option(help="Sizes of Llama, comma-separated.")] = ",".join(SIZES),
    base: Annotated[str, typer.Option(help="How the frozen weights are stored.")] = "float32,int8",
    recompute: Annotated[str, typer.Option(help="Activations that are made again.")] = "none,selective",
    rank: Annotated[str, typer.Option(help="LoRA ranks, comma-separated.")] = "4,24",
    shape: Annotated[str, typer.Option(help="Texts x tokens of a batch, comma-separated.")] = "2x96,4x192",
    threads: Threads = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a process that count, after two others.")] = 3,
    pairs: Pairs = 1,
    seed: Seed = 0,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Set what the planner of a device forecasts beside what a training process then takes.

    The rate of arithmetic is this machine's, as a device measures it when it checks in.

    Read: `rows` (`memory_error` and `time_error` are the forecast over the measured figure, less one), and
    the largest and the median of both without their signs.

    Example: `hetlora bench forecast --model 23M --shape 2x96`
    """
    beginning = begin()
    sizes = choices_of(model, "model", [*SIZES])
    variants = [
        Variant(precision, way)
        for precision in choices_of(base, "base", get_args(Precision))
        for way in choices_of(recompute, "recompute", get_args(Recompute))
    ]
    ranks = counts_of(rank, "rank")
    shapes = [Shape.parse(text) for text in values_of(shape, "shape")]
    capabilities = take_probe(Path()).report()
    rate = training_rate(capabilities, threads)
    rows = []
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        longest = max(one.tokens for one in shapes)
        for name, bundle in _bundles(sizes, variants, max(ranks), longest, seed, Path(scratch)):
            for lora_rank, one in product(ranks, shapes):
                plan = Plan(lora_rank, warm_up=2, steps=steps, pairs=pairs, seed=seed)
                runs = _measure(bundle, one, threads, plan, Path(scratch) / "inputs")
                cost = bundle.manifest.cost_model
                step = cost.step(batch=one.batch, tokens=one.tokens, rank=lora_rank)
                whole = StepPlan(one.batch, one.tokens, lora_rank, one.batch)
                forecast = forecast_round(cost, whole, steps=1, flops_per_second=rate)
                variant = Variant.of(bundle)
                rows.append(
                    forecast_row(name, variant, one, step, forecast, runs, counted=_counted(cost, step))
                )
    if not as_json:
        stdout.print(_table(rows))
    figures = {
        "models": {name: asdict(SIZES[name]) for name in sizes},
        "threads": threads,
        "matmul_flops_per_second": capabilities.matmul_flops_per_second,
        **summary(rows),
        "rows": [asdict(row) for row in rows],
    }
    packages = ("onnxruntime-training-cpu", "numpy")
    finish("forecast", figures, beginning=beginning, seed=seed, packages=packages, results=results)


def forecast_row(
    model: str,
    variant: Variant,
    shape: Shape,
    step: StepSize,
    forecast: Forecast,
    runs: Sequence[StepRun],
    *,
    counted: Mapping[str, int],
) -> ForecastRow:
    """Set a forecast of one step beside the medians of the runs."""
    peak_bytes, seconds = median_of(runs, "peak_bytes"), median_of(runs, "seconds")
    return ForecastRow(
        model,
        variant.base,
        variant.recompute,
        step.rank,
        str(shape),
        forecast.peak_bytes,
        int(peak_bytes),
        round(forecast.peak_bytes / peak_bytes - 1, 3),
        round(forecast.seconds, 4),
        round(seconds, 4),
        round(forecast.seconds / seconds - 1, 3),
        counted,
    )


def _counted(cost: CostModel, step: StepSize) -> dict[str, int]:
    return {
        "flops": cost.flops.at(step),
        "written_bytes": cost.written_bytes.at(step),
        "live_bytes": cost.peak_live_bytes(step),
        "graph_nodes": cost.graph_nodes,
        "base_weight_bytes": cost.base_weight_bytes,
        "adapter_bytes": step.rank * cost.adapter_bytes_per_rank,
    }


def summary(rows: Sequence[ForecastRow]) -> dict[str, float]:
    """The largest and the median error of memory and of time, without signs."""
    memory, time = [abs(row.memory_error) for row in rows], [abs(row.time_error) for row in rows]
    return {
        "largest_memory_error": max(memory),
        "median_memory_error": statistics.median(memory),
        "largest_time_error": max(time),
        "median_time_error": statistics.median(time),
    }


def _bundles(
    sizes: Sequence[str], variants: Sequence[Variant], max_rank: int, max_tokens: int, seed: int, work: Path
) -> Iterator[tuple[str, Bundle]]:
    for name in sizes:
        model = write_llama(work / name, SIZES[name], seed=seed)
        for variant in variants:
            stderr.print(f"{name}: {variant}", style="dim")
            out = work / f"{name}-{variant}"
            kind = (variant.base, variant.recompute)
            yield name, export_llama(model, out, *kind, max_rank=max_rank, max_tokens=max_tokens)


def _measure(bundle: Bundle, shape: Shape, threads: int, plan: Plan, folder: Path) -> list[StepRun]:
    shared = write_inputs(bundle.manifest, shape, threads, plan, folder) | {"imports": ["edge_sdk.client"]}
    (runs,) = run_in_turn({"ours": our_command(shared, bundle, folder)}, plan.pairs).values()
    return runs


def _table(rows: Sequence[ForecastRow]) -> Table:
    table = Table(title="Forecast and measured", title_justify="left")
    for heading in ("model", "base", "recompute", "batch"):
        table.add_column(heading)
    for heading in ("rank", "forecast MB", "peak MB", "error", "forecast s", "seconds", "error"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            row.base,
            row.recompute,
            row.shape,
            str(row.rank),
            f"{row.forecast_peak_bytes / 1e6:.0f}",
            f"{row.peak_bytes / 1e6:.0f}",
            f"{row.memory_error:+.0%}",
            f"{row.forecast_seconds:.2f}",
            f"{row.seconds:.2f}",
            f"{row.time_error:+.0%}",
        )
    return table
