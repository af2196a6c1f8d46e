"""The demo from the bundle to the report: one service, eight device processes, two runs, one picture."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.demo.fleet_data import FleetData, load_fleet_data
from benchmarks.demo.model import model_folder
from benchmarks.demo.profiles import profile_of
from benchmarks.demo.report import Curve, draw_accuracy, write_json
from benchmarks.demo.scoring import Scorer, pytorch_accuracy
from benchmarks.demo.watching import watch
from benchmarks.fleet import POPULATION, DeviceSetup, Fleet
from export.bundle_writer import export_bundle
from hetlora.bundle import Bundle
from hetlora.errors import ServiceFailed, SettingsError
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.states import AssignmentState
from hetlora.tensors import adapter_from_bytes, write_peft_folder

TARGETS: Final = ("query", "key", "value", "attention.output.dense")
MIN_RANK: Final = 4
MAX_RANK: Final = 32
# A device may train for half of it, which is enough for the weakest profile.
LEASE_SECONDS: Final = 240.0
TRAINING: Final = TrainingSettings(
    steps=8, batch_size=8, learning_rate=3e-3, max_tokens=32, pruning_decay=0.99, pruning_penalty=1e-3
)


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What a user may choose."""

    data: Path | None
    out: Path
    rounds: int
    devices: int
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run: its curve, and the bytes of its last adapter."""

    curve: Curve
    adapter: bytes


def run_demo(settings: DemoSettings, *, quiet: bool) -> dict[str, Any]:
    """Run the demo and return what `result.json` holds.

    Raises:
        DataError: the user's data cannot be read.
        ServiceFailed: the PEFT folder scores otherwise in PyTorch, or a process of the fleet died.
    """
    started = time.perf_counter()
    console = Console(quiet=quiet, highlight=False)
    data = load_fleet_data(settings.data, settings.devices, settings.seed)
    console.print(data.summary())
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"cannot write to {settings.out}", got=error.strerror, expected="a folder"
        ) from error
    with tempfile.TemporaryDirectory(prefix="hetlora-demo-") as scratch:
        work = Path(scratch)
        with console.status("Exporting the model: one training graph for every rank"):
            bundle = export_bundle(
                str(model_folder()),
                work / "bundle",
                labels=data.labels,
                targets=TARGETS,
                max_rank=MAX_RANK,
                max_tokens=TRAINING.max_tokens,
            )
        scorer = Scorer(bundle, data.held_out)
        untrained = scorer.accuracy(None)
        console.print(f"Untrained, the model sorts {untrained:.1%} of the held-out passages correctly.")
        with Fleet(work, bundle) as fleet:
            _start_devices(fleet, data, settings.seed)
            show = partial(_watched_run, fleet, bundle, scorer, untrained, settings, console)
            mixed = show("each device at the rank it can afford", MAX_RANK)
            small = show(f"every device at rank {MIN_RANK}", MIN_RANK)
        adapter_folder = settings.out / "adapter"
        with console.status("Scoring the PEFT folder in PyTorch"):
            in_pytorch = _check_in_pytorch(bundle, mixed.adapter, adapter_folder, scorer)
    # Two libraries round differently, so a passage between two classes may fall either way: one, not more.
    if abs(in_pytorch - mixed.curve.accuracies[-1]) > 1.5 / len(data.held_out):
        raise ServiceFailed(
            "the PEFT folder scores otherwise in PyTorch", got=in_pytorch, expected=mixed.curve.accuracies[-1]
        )
    curves = [mixed.curve, small.curve]
    draw_accuracy(untrained, curves, len(data.held_out), settings.out / "accuracy.png")
    figures = {
        "source": data.source,
        "seed": settings.seed,
        "devices": settings.devices,
        "labels": len(data.labels),
        "held_out": len(data.held_out),
        "untrained_accuracy": untrained,
        "final_accuracy": mixed.curve.accuracies[-1],
        "smallest_rank_accuracy": small.curve.accuracies[-1],
        "pytorch_accuracy": in_pytorch,
        "seconds": round(time.perf_counter() - started, 1),
    }
    console.print(
        f"{untrained:.1%} untrained, {small.curve.accuracies[-1]:.1%} with every device at rank {MIN_RANK}, "
        f"[bold]{mixed.curve.accuracies[-1]:.1%} with each device at its own rank[/]; "
        f"the PEFT folder scores {in_pytorch:.1%} in PyTorch.\n"
        f"Picture, result and adapter are in {settings.out}."
    )
    return write_json(settings.out / "result.json", curves, figures)


def _start_devices(fleet: Fleet, data: FleetData, seed: int) -> None:
    for index, examples in enumerate(data.devices):
        kind, capabilities = profile_of(index)
        rows = [(example.text, example.label) for example in examples]
        secret = f"hetlora demo {seed} {index}"
        fleet.start_device(DeviceSetup(f"{kind} {index + 1}", capabilities, rows, secret))


def _watched_run(
    fleet: Fleet,
    bundle: Bundle,
    scorer: Scorer,
    untrained: float,
    settings: DemoSettings,
    console: Console,
    name: str,
    max_rank: int,
) -> Outcome:
    """Create a run in which the devices are offered ranks up to `max_rank`, and watch it to its end."""
    console.rule(name, align="left")
    run = fleet.operator.create_run(
        RunCreate(
            population=POPULATION,
            bundle=bundle.digest,
            settings=RunSettings(
                rounds=settings.rounds,
                goal_count=settings.devices,
                over_selection=1.0,
                lease_seconds=LEASE_SECONDS,
                min_rank=MIN_RANK,
                max_rank=max_rank,
                seed=settings.seed,
                training=TRAINING,
            ),
        )
    )
    started = time.perf_counter()
    fleet.operator.move_run(run.run_id, "start")
    accuracies = watch(
        fleet.operator, run.run_id, bundle.manifest.adapter, scorer, untrained, console, fleet.check
    )
    assignments = [
        status
        for status in fleet.operator.assignments(run.run_id)
        if status.state is AssignmentState.ACCEPTED
    ]
    curve = Curve(
        name,
        accuracies,
        sorted(status.rank or 0 for status in assignments if status.round_index == 0),
        sum(status.uploaded_bytes or 0 for status in assignments),
        round(time.perf_counter() - started, 1),
    )
    newest = next(fleet.operator.adapters(run.run_id))
    return Outcome(curve, fleet.operator.adapter_bytes(newest.version))


def _check_in_pytorch(bundle: Bundle, tensors: bytes, folder: Path, scorer: Scorer) -> float:
    manifest = bundle.manifest
    adapter = adapter_from_bytes(tensors, manifest.adapter)
    write_peft_folder(adapter, folder, base_model=manifest.base_model.id)
    return pytorch_accuracy(scorer, bundle, model_folder(), folder)
