"""Rounds of this device with a real service, in the metrics and by the names of EdgeFlowerTune.

EdgeFlowerTune (arXiv 2605.08636) tells of each client what is in `RoundRow`; its tables have batches of 8
texts x 64 tokens and three local steps, with LoRA on query, key, value and output. Its MB are MiB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import httpx
from rich.table import Table

from benchmarks.demo.profiles import PROFILES
from benchmarks.device.process import batch_in_words, run_process
from benchmarks.device.section import Section, Setting
from benchmarks.step_shapes import Shape
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import RunCreate, RunSettings

SHAPE: Final = Shape(8, 64)
LOCAL_STEPS: Final = 3


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One device in one round; times of transfer hold what encodes and verifies, and are of loopback.

    `avg_rss_mb` and `avg_power_w` are means from the adapter's arrival to the end of the upload, with the
    opening of the runtime; step times are without that.
    """

    model: str
    base: str
    batch: str
    rank: int
    steps_completed: int
    step_times_sec: Sequence[float]
    mean_step_time_sec: float
    max_step_time_sec: float
    download_time_sec: float
    upload_time_sec: float
    aggregation_time_sec: float
    download_bytes: int
    upload_bytes: int
    transmitted_bytes: int
    avg_rss_mb: float
    peak_rss_mb: float
    avg_power_w: float | None
    power_samples: int


def round_section(setting: Setting, ranks: Sequence[int], shapes: Sequence[Shape]) -> Section:
    """Take part in a round at each rank with each bundle, at a service that is started here.

    On a board without `hetlora[service]` there are no rows, and `rounds_words` says why.
    """
    if find_spec("fastapi") is None:
        words = "no rounds: they need a service, pip install 'hetlora[service]'"
        return Section({"rounds": [], "rounds_words": words}, Table(title=words, title_justify="left"))
    rows: list[RoundRow] = []
    for name, bundle in setting.bundles.items():
        setting.tell(f"{name}: rounds")
        rows += _rounds(name, bundle, ranks, setting)
    return Section({"rounds": [asdict(row) for row in rows]}, _table(rows))


def _rounds(model: str, bundle: Bundle, ranks: Sequence[int], setting: Setting) -> list[RoundRow]:
    from benchmarks.fleet import POPULATION, Fleet

    work, rows, aggregated = setting.work / f"rounds-{model}", [], 0.0
    work.mkdir()
    with Fleet(work, bundle) as fleet:
        for rank in ranks:
            run = fleet.operator.create_run(_run(bundle, rank, setting.seed))
            fleet.operator.move_run(run.run_id, "start")
            told = run_process(
                "round",
                bundle,
                rank,
                SHAPE,
                setting,
                steps=LOCAL_STEPS,
                url=fleet.service.url,
                population=POPULATION,
                token=fleet.enrolment_token,
                folder=str(_folder(work)),
                # By hand, so that no forecast lowers a rank: what it takes is what is measured.
                capabilities=PROFILES["workstation"].model_dump(mode="json"),
            )
            fleet.await_end(run.run_id)
            total = aggregation_seconds(httpx.get(f"{fleet.service.url}/internal/v1/metrics").text)
            rows.append(round_row(model, bundle, told, total - aggregated))
            aggregated = total
    return rows


def _run(bundle: Bundle, rank: int, seed: int) -> RunCreate:
    from benchmarks.fleet import POPULATION

    settings = RunSettings(
        rounds=1,
        goal_count=1,
        over_selection=1.0,
        min_rank=rank,
        max_rank=rank,
        seed=seed,
        training=TrainingSettings(
            steps=LOCAL_STEPS,
            batch_size=SHAPE.batch,
            max_tokens=min(SHAPE.tokens, bundle.manifest.max_tokens),
            pruning_decay=1.0,
        ),
    )
    return RunCreate(population=POPULATION, bundle=bundle.digest, settings=settings)


def _folder(work: Path) -> Path:
    folder = work / "device"
    folder.mkdir(exist_ok=True)
    return folder


def round_row(model: str, bundle: Bundle, told: Mapping[str, Any], aggregation_time_sec: float) -> RoundRow:
    """What a device told, and how long the service aggregated."""
    return RoundRow(
        model=model,
        base=bundle.manifest.base_precision,
        batch=batch_in_words(bundle, SHAPE),
        aggregation_time_sec=round(aggregation_time_sec, 5),
        **told,
    )


def aggregation_seconds(metrics: str) -> float:
    """What a service has spent in all on reading and aggregating updates, of its Prometheus text."""
    found = re.findall(
        r'^hetlora_round_commit_step_seconds_sum\{step="(?:read|aggregate)"\} (\S+)$', metrics, re.MULTILINE
    )
    return sum(map(float, found))


def _table(rows: Sequence[RoundRow]) -> Table:
    table = Table(title="Rounds, by EdgeFlowerTune's metrics", title_justify="left")
    table.add_column("model")
    headings = (
        "rank",
        "mean step s",
        "download s",
        "upload s",
        "aggregation s",
        "MB sent",
        "average MiB",
        "peak MiB",
        "W",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            str(row.rank),
            f"{row.mean_step_time_sec:.3f}",
            f"{row.download_time_sec:.3f}",
            f"{row.upload_time_sec:.3f}",
            f"{row.aggregation_time_sec:.4f}",
            f"{row.transmitted_bytes / 1e6:.2f}",
            f"{row.avg_rss_mb:.0f}",
            f"{row.peak_rss_mb:.0f}",
            "" if row.avg_power_w is None else f"{row.avg_power_w:.1f}",
        )
    return table
