"""The demo from the bundle to the report: one service, eight device processes, two runs, one picture."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.demo.fleet_data import FleetData, load_fleet_data
from benchmarks.demo.model import model_folder
from benchmarks.demo.profiles import profile_of
from benchmarks.demo.report import Curve, draw_accuracy, write_json
from benchmarks.demo.scoring import Scorer, pytorch_accuracy
from benchmarks.demo.watching import watch
from benchmarks.fleet import DeviceSetup, Process, Service, device_process, write_examples
from export.bundle_writer import export_bundle
from hetlora.bundle import Bundle
from hetlora.cli.adapter import PEFT_TASK_TYPES
from hetlora.cli.operator import Operator
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.tensors import adapter_from_bytes, write_peft_folder

POPULATION: Final = "demo"
TARGETS: Final = ("query", "key", "value", "attention.output.dense")
MIN_RANK: Final = 4
MAX_RANK: Final = 32
MAX_TOKENS: Final = 48
TRAINING: Final = TrainingSettings(
    steps=15,
    batch_size=16,
    learning_rate=1e-3,
    max_tokens=MAX_TOKENS,
    pruning_decay=0.99,
    pruning_penalty=1e-3,
)


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What a user may choose."""

    data: Path | None
    out: Path
    rounds: int
    devices: int
    seed: int


def run_demo(settings: DemoSettings, *, quiet: bool) -> dict[str, Any]:
    """Run the demo and return what `result.json` holds."""
    started = time.perf_counter()
    console = Console(quiet=quiet, highlight=False)
    data = load_fleet_data(settings.data, settings.devices, settings.seed)
    console.print(data.summary())
    settings.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hetlora-demo-") as scratch:
        work = Path(scratch)
        with console.status("Exporting the model: one training graph for every rank"):
            bundle = _export(data, work)
        scorer = Scorer(bundle, data.held_out)
        untrained = scorer.accuracy(None)
        console.print(
            f"The untrained model tells {untrained:.1%} of {len(data.held_out)} held-out passages apart."
        )
        with _fleet(work, data, bundle) as operator:
            mixed = _run(operator, scorer, settings, bundle, "each device at its own rank", MAX_RANK, console)
            small = _run(
                operator, scorer, settings, bundle, f"every device at rank {MIN_RANK}", MIN_RANK, console
            )
        with console.status("Scoring the PEFT folder in PyTorch"):
            folder = settings.out / "adapter"
            adapter = adapter_from_bytes(mixed.adapter, bundle.manifest.adapter)
            task_type = PEFT_TASK_TYPES[bundle.manifest.task]
            write_peft_folder(adapter, folder, base_model=bundle.manifest.base_model.id, task_type=task_type)
            in_pytorch = pytorch_accuracy(bundle, folder, data.held_out)
    curves = [mixed.curve, small.curve]
    picture = settings.out / "accuracy.png"
    draw_accuracy(untrained, curves, len(data.held_out), picture)
    result = write_json(
        settings.out / "result.json",
        curves,
        {
            "seed": settings.seed,
            "devices": settings.devices,
            "rounds": settings.rounds,
            "labels": len(data.labels),
            "held_out": len(data.held_out),
            "untrained_accuracy": untrained,
            "final_accuracy": mixed.curve.accuracies[-1],
            "smallest_rank_accuracy": small.curve.accuracies[-1],
            "pytorch_accuracy": in_pytorch,
            "seconds": time.perf_counter() - started,
            "python": platform.python_version(),
        },
    )
    _conclude(console, result, picture, folder)
    return result
