"""Forecast and measured: peak memory and step time, before and after a device's trial of each bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Final

from rich.table import Table

from benchmarks.device.process import batch_in_words, run_process, step_plan
from benchmarks.device.section import Section, Setting
from benchmarks.step_shapes import Shape
from edge_sdk.planning.calibration import correction_of
from edge_sdk.planning.forecast import (
    UNCORRECTED,
    Correction,
    Forecast,
    StepPlan,
    forecast_round,
    training_rate,
)
from edge_sdk.planning.trial import Trial
from edge_sdk.probe import ModelShape, RateCache, take_probe
from hetlora.bundle import Bundle
from hetlora.messages.device import CapabilityReport

WARM_UP: Final = 2


@dataclass(frozen=True, slots=True)
class ForecastRow:
    """One bundle at one rank and batch; an error is the forecast over what was measured, less one.

    `memory_error` and `time_error` are of the forecast as a device has it, which tried the bundle at
    another rank or size; the plain ones are of the forecast before that.
    """

    model: str
    rank: int
    shape: str
    peak_bytes: int
    seconds: float
    memory_error: float
    time_error: float
    plain_memory_error: float
    plain_time_error: float


def forecast_section(setting: Setting, ranks: Sequence[int], shapes: Sequence[Shape]) -> Section:
    """Try each bundle once, at the last rank and batch, then measure every rank and batch."""
    rows: list[ForecastRow] = []
    corrections = {}
    for name, bundle in setting.bundles.items():
        setting.tell(f"{name}: forecasts")
        device = _capabilities(bundle, shapes[-1], setting)
        correction = _correction(bundle, step_plan(bundle, shapes[-1], ranks[-1]), device, setting)
        corrections[name] = asdict(correction)
        rows += _rows(name, bundle, device, correction, setting, product(ranks, shapes))
    figures = {**largest_errors(rows), "corrections": corrections, "rows": [asdict(row) for row in rows]}
    return Section(figures, _table(rows))


def largest_errors(rows: Sequence[ForecastRow]) -> dict[str, float]:
    """The largest of each error, without its sign."""
    names = ("memory_error", "time_error", "plain_memory_error", "plain_time_error")
    return {f"{name}_max": max(abs(getattr(row, name)) for row in rows) for name in names}


def row_of(
    model: str, shape: str, rank: int, told: Mapping[str, float], plain: Forecast, own: Forecast
) -> ForecastRow:
    """Set the forecast of one step before and after the trial beside what a process told of it."""
    peak_bytes, seconds = int(told["peak_bytes"]), told["seconds"]
    return ForecastRow(
        model,
        rank,
        shape,
        peak_bytes,
        round(seconds, 4),
        round(own.peak_bytes / peak_bytes - 1, 3),
        round(own.seconds / seconds - 1, 3),
        round(plain.peak_bytes / peak_bytes - 1, 3),
        round(plain.seconds / seconds - 1, 3),
    )


def _rows(
    name: str,
    bundle: Bundle,
    device: CapabilityReport,
    correction: Correction,
    setting: Setting,
    cases: Iterable[tuple[int, Shape]],
) -> Iterator[ForecastRow]:
    rate = training_rate(device, setting.threads)
    for rank, shape in cases:
        step = step_plan(bundle, shape, rank)
        told = _measured(bundle, step, setting, is_trial=False)
        plain, own = (
            forecast_round(bundle.manifest.cost_model, step, steps=1, flops_per_second=rate, correction=one)
            for one in (UNCORRECTED, correction)
        )
        yield row_of(name, batch_in_words(bundle, shape), rank, told, plain, own)


def _capabilities(bundle: Bundle, shape: Shape, setting: Setting) -> CapabilityReport:
    model = ModelShape.of(bundle.manifest, batch=shape.batch, tokens=shape.tokens)
    return take_probe(setting.work, shape=model, cache=RateCache(setting.work / "rates.json")).report()


def _correction(bundle: Bundle, step: StepPlan, device: CapabilityReport, setting: Setting) -> Correction:
    told = _measured(bundle, step, setting, is_trial=True)
    trial = Trial(told["seconds"], told["grown_bytes"], told["watts"])
    rate = training_rate(device, setting.threads)
    return correction_of(
        trial, forecast_round(bundle.manifest.cost_model, step, steps=1, flops_per_second=rate)
    )


def _measured(bundle: Bundle, step: StepPlan, setting: Setting, *, is_trial: bool) -> dict[str, Any]:
    return run_process(
        "step",
        bundle,
        step.rank,
        Shape(step.batch, step.tokens),
        setting,
        steps=setting.steps,
        step=asdict(step),
        is_trial=is_trial,
        warm_up=WARM_UP,
    )


def _table(rows: Sequence[ForecastRow]) -> Table:
    table = Table(title="Forecast and measured", title_justify="left")
    table.add_column("model")
    headings = (
        "rank",
        "batch",
        "peak MB",
        "seconds",
        "memory error",
        "time error",
        "untried: memory",
        "time",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            str(row.rank),
            row.shape,
            f"{row.peak_bytes / 1e6:.0f}",
            f"{row.seconds:.3f}",
            f"{row.memory_error:+.0%}",
            f"{row.time_error:+.0%}",
            f"{row.plain_memory_error:+.0%}",
            f"{row.plain_time_error:+.0%}",
        )
    return table
