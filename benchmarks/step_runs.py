"""Training steps of a decoder in processes of their own: what they are given, and what each of them spent."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import executable
from typing import Any, Final, Self

import numpy as np

from benchmarks.harness import Measured, run_measured
from benchmarks.peers.training_step import nonzero_adapter
from benchmarks.step_shapes import Shape
from hetlora.bundle import Bundle
from hetlora.graph_names import ATTENTION_MASK, INPUT_IDS, LABELS
from hetlora.manifest import Manifest, Precision, Recompute
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import write_peft_folder

_PEERS: Final = Path(__file__).parent / "peers"

Command = Sequence[str | Path]
Runner = Callable[[Command], Measured]


@dataclass(frozen=True, slots=True)
class Variant:
    """What tells the bundles of one model and adapter apart."""

    base: Precision
    recompute: Recompute

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """As the bundle's manifest says it."""
        return cls(bundle.manifest.base_precision, bundle.manifest.recompute)

    def __str__(self) -> str:
        return f"{self.base}-{self.recompute}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of each process, and how often it is started: `pairs` times, in turn with the others."""

    rank: int
    warm_up: int
    steps: int
    pairs: int
    seed: int


@dataclass(frozen=True, slots=True)
class StepRun:
    """One process: medians over its counted steps, and its peak resident memory from start to end."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    first_loss: float
    last_loss: float

    @classmethod
    def of(cls, measured: Measured) -> Self:
        """Read what a `_step` script printed."""
        told = measured.last_json()
        return cls(
            told["seconds_per_step"],
            told["cpu_seconds_per_step"],
            measured.peak_rss_bytes,
            told["first_loss"],
            told["last_loss"],
        )


def write_inputs(manifest: Manifest, shape: Shape, threads: int, plan: Plan, folder: Path) -> dict[str, Any]:
    """Write the adapter and the batches, random tokens without padding; return what every config holds."""
    assert manifest.generation is not None, manifest.task
    rng = np.random.default_rng(plan.seed)
    folder.mkdir(parents=True, exist_ok=True)
    adapter = nonzero_adapter(manifest.adapter, plan.rank, rng)
    write_peft_folder(adapter, folder / "adapter", base_model=manifest.base_model.id)
    size = (plan.warm_up + plan.steps, shape.batch, shape.tokens)
    tokens = rng.integers(manifest.generation.vocabulary, size=size)
    arrays = {INPUT_IDS: tokens, ATTENTION_MASK: np.ones_like(tokens), LABELS: tokens}
    np.savez(folder / "arrays.npz", allow_pickle=False, **arrays)
    return {
        "adapter": str(folder / "adapter"),
        "arrays": str(folder / "arrays.npz"),
        "threads": threads,
        "warm_up": plan.warm_up,
        "learning_rate": TrainingSettings.model_fields["learning_rate"].default,
        "optimizer": manifest.optimizer.model_dump(),
    }


def our_command(shared: Mapping[str, Any], bundle: Bundle, folder: Path) -> Command:
    """The process that takes the steps of `write_inputs` with a bundle."""
    path = folder / f"{Variant.of(bundle)}.json"
    path.write_text(json.dumps({**shared, "bundle": str(bundle.folder)}))
    return [executable, _PEERS / "onnx_step.py", path]


def peer_command(shared: Mapping[str, Any], model: Path, attention: str, folder: Path, peer: Path) -> Command:
    """The process that takes the same steps with a Python that has PyTorch and PEFT."""
    path = folder / f"{attention}.json"
    path.write_text(json.dumps({**shared, "model": str(model), "attention": attention}))
    return [peer, _PEERS / "torch_peft_step.py", path]


def written(config: Mapping[str, Any], script: str, python: str | Path, path: Path) -> Command:
    """The process of a script of `peers` that is given this config."""
    path.write_text(json.dumps(config))
    return [python, _PEERS / script, path]


def run_in_turn(
    commands: Mapping[str, Command], pairs: int, *, runner: Runner = run_measured
) -> dict[str, list[StepRun]]:
    """Run all commands in turn, `pairs` times over, so that a drift of the machine meets all alike."""
    runs: dict[str, list[StepRun]] = {name: [] for name in commands}
    for _ in range(pairs):
        for name, command in commands.items():
            runs[name].append(StepRun.of(runner(command)))
    return runs


def median_of(runs: Sequence[StepRun], name: str) -> float:
    """The median of one figure over runs."""
    return statistics.median(column_of(runs, name))


def column_of(runs: Sequence[StepRun], name: str) -> list[float]:
    """One figure of each run."""
    return [getattr(run, name) for run in runs]
