"""One training step of a decoder, ours and PyTorch + PEFT's: processes in turn, and what each spent."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import executable
from typing import Any, Final, Self

import numpy as np

from benchmarks.harness import Measured, median_ratio, run_measured
from benchmarks.peers.training_step import nonzero_adapter
from hetlora.bundle import Bundle
from hetlora.errors import HetloraError, SettingsError
from hetlora.graph_names import ATTENTION_MASK, INPUT_IDS, LABELS
from hetlora.manifest import Manifest, Precision, Recompute
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import write_peft_folder

ATTENTIONS: Final = ("eager", "sdpa")
# Of the first loss, relative: weights of both sides are the same, and so is the adapter. What is stored in
# fewer bits answers a little differently.
LOSS_TOLERANCE: Final[Mapping[Precision, float]] = {
    "float32": 1e-4,
    "float16": 1e-3,
    "bfloat16": 5e-3,
    "int8": 5e-3,
    "int4": 5e-2,
}

_PEERS: Final = Path(__file__).parent / "peers"

Command = Sequence[str | Path]
Runner = Callable[[Command], Measured]


@dataclass(frozen=True, slots=True)
class Shape:
    """The batch of one step, all its texts of the same length."""

    batch: int
    tokens: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `4x256`.

        Raises:
            SettingsError: anything else.
        """
        found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
        if found is None:
            raise SettingsError("a shape of a batch", got=text, expected="texts x tokens, such as 4x256")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.batch}x{self.tokens}"


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


@dataclass(frozen=True, slots=True)
class StepRow:
    """Ours against the peer's best of its attention kernels: for time its fastest, for memory its leanest.

    `time_ratio` is the peer's seconds over ours, `cpu_time_ratio` the same in processor time, `memory_ratio`
    our bytes over the peer's: medians over pairs. Seconds and bytes are medians over the runs; the peer's are
    those of `peer_attention` and `peer_leanest_attention`.
    """

    base: Precision
    recompute: Recompute
    shape: str
    threads: int
    time_ratio: float
    cpu_time_ratio: float
    memory_ratio: float
    seconds: float
    peer_seconds: float
    peer_attention: str
    peak_bytes: int
    peer_peak_bytes: int
    peer_leanest_attention: str
    runs: Mapping[str, Sequence[StepRun]]


def compare(
    bundles: Sequence[Bundle],
    model: Path,
    shape: Shape,
    threads: int,
    plan: Plan,
    folder: Path,
    *,
    peer: Path,
    runner: Runner = run_measured,
) -> list[StepRow]:
    """Take the same steps with each bundle and with the peer in both its attention kernels; one row a bundle.

    The bundles are of `model` and of one adapter specification, and differ in precision or recomputation.
    `peer` is a Python that has PyTorch and PEFT; files go to `folder`.

    Raises:
        HetloraError: a run failed, or the first losses say that the two sides do not do the same work.
    """
    shared = write_inputs(bundles[0].manifest, shape, threads, plan, folder)
    commands = {
        **{variant(bundle.manifest): our_command(shared, bundle, folder) for bundle in bundles},
        **{attention: _peer_command(shared, model, attention, folder, peer) for attention in ATTENTIONS},
    }
    runs = run_in_turn(commands, plan.pairs, runner=runner)
    peers = {attention: runs[attention] for attention in ATTENTIONS}
    return [
        step_row(bundle.manifest, shape, threads, runs[variant(bundle.manifest)], peers) for bundle in bundles
    ]


def variant(manifest: Manifest) -> str:
    """What tells the bundles of one model and adapter apart."""
    return f"{manifest.base_precision}-{manifest.recompute}"


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
        "task": manifest.task,
        "adapter": str(folder / "adapter"),
        "arrays": str(folder / "arrays.npz"),
        "threads": threads,
        "warm_up": plan.warm_up,
        "learning_rate": TrainingSettings.model_fields["learning_rate"].default,
        "optimizer": manifest.optimizer.model_dump(),
    }


def our_command(shared: Mapping[str, Any], bundle: Bundle, folder: Path) -> Command:
    """The process that takes the steps of `write_inputs` with a bundle."""
    config = {**shared, "bundle": str(bundle.folder)}
    path = folder / f"{variant(bundle.manifest)}.json"
    path.write_text(json.dumps(config))
    return [executable, _PEERS / "onnx_step.py", path]


def _peer_command(
    shared: Mapping[str, Any], model: Path, attention: str, folder: Path, peer: Path
) -> Command:
    path = folder / f"{attention}.json"
    path.write_text(json.dumps({**shared, "model": str(model), "attention": attention}))
    return [peer, _PEERS / "torch_peft_step.py", path]


def run_in_turn(
    commands: Mapping[str, Command], pairs: int, *, runner: Runner = run_measured
) -> dict[str, list[StepRun]]:
    """Run all commands in turn, `pairs` times over, so that a drift of the machine meets all alike."""
    runs: dict[str, list[StepRun]] = {name: [] for name in commands}
    for _ in range(pairs):
        for name, command in commands.items():
            runs[name].append(StepRun.of(runner(command)))
    return runs


def step_row(
    manifest: Manifest,
    shape: Shape,
    threads: int,
    ours: Sequence[StepRun],
    peers: Mapping[str, Sequence[StepRun]],
) -> StepRow:
    """Set our runs against the peer's, the i-th beside the i-th.

    Raises:
        HetloraError: a first loss differs by more than LOSS_TOLERANCE of the bundle's precision.
    """
    _check_same_work(manifest, ours, peers)
    times = {name: _ratio(runs, ours, "seconds") for name, runs in peers.items()}
    memories = {name: _ratio(ours, runs, "peak_bytes") for name, runs in peers.items()}
    fastest, leanest = min(times, key=times.__getitem__), max(memories, key=memories.__getitem__)
    return StepRow(
        manifest.base_precision,
        manifest.recompute,
        str(shape),
        threads,
        time_ratio=times[fastest],
        cpu_time_ratio=min(_ratio(runs, ours, "cpu_seconds") for runs in peers.values()),
        memory_ratio=memories[leanest],
        seconds=round(median_of(ours, "seconds"), 4),
        peer_seconds=round(median_of(peers[fastest], "seconds"), 4),
        peer_attention=fastest,
        peak_bytes=int(median_of(ours, "peak_bytes")),
        peer_peak_bytes=int(median_of(peers[leanest], "peak_bytes")),
        peer_leanest_attention=leanest,
        runs={"ours": ours, **peers},
    )


def median_of(runs: Sequence[StepRun], name: str) -> float:
    """The median of one figure over runs."""
    return statistics.median(_column(runs, name))


def _column(runs: Sequence[StepRun], name: str) -> list[float]:
    return [getattr(run, name) for run in runs]


def _ratio(over: Sequence[StepRun], under: Sequence[StepRun], name: str) -> float:
    return round(median_ratio(_column(over, name), _column(under, name)), 3)


def _check_same_work(
    manifest: Manifest, ours: Sequence[StepRun], peers: Mapping[str, Sequence[StepRun]]
) -> None:
    tolerance = LOSS_TOLERANCE[manifest.base_precision]
    for attention, runs in peers.items():
        for mine, theirs in zip(ours, runs, strict=True):
            # Written so that a loss that is no number fails too.
            if not abs(mine.first_loss - theirs.first_loss) <= tolerance * abs(theirs.first_loss):
                raise HetloraError(
                    f"first losses of {variant(manifest)} and {attention} differ: not the same work",
                    got=f"{mine.first_loss:.6f} and {theirs.first_loss:.6f}",
                    expected=f"equal within {tolerance:g} of them",
                )
