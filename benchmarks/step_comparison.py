"""One training step of a decoder, ours against PyTorch with PEFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.harness import median_ratio
from benchmarks.step_runs import (
    Plan,
    StepRun,
    Variant,
    column_of,
    median_of,
    our_command,
    peer_command,
    run_in_turn,
    write_inputs,
)
from benchmarks.step_shapes import Shape
from hetlora.bundle import Bundle
from hetlora.errors import HetloraError
from hetlora.manifest import Precision, Recompute

ATTENTIONS: Final = ("eager", "sdpa")
# Of the first loss, relative: weights of both sides are the same, and so is the adapter. What is stored in
# fewer bits answers a little differently.
LOSS_TOLERANCE: Final[Mapping[Precision, float]] = {
    "float32": 1e-5,
    "float16": 1e-3,
    "bfloat16": 5e-3,
    "int8": 5e-3,
    "int4": 5e-2,
}


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
) -> list[StepRow]:
    """Take the same steps with each bundle and with the peer in both its attention kernels; one row a bundle.

    The bundles are of `model` and of one adapter specification, and differ in precision or recomputation.
    `peer` is a Python that has PyTorch and PEFT; files go to `folder`.

    Raises:
        HetloraError: a run failed, or the first losses say that the two sides do not do the same work.
    """
    shared = write_inputs(bundles[0].manifest, shape, threads, plan, folder)
    commands = {
        **{str(Variant.of(bundle)): our_command(shared, bundle, folder) for bundle in bundles},
        **{attention: peer_command(shared, model, attention, folder, peer) for attention in ATTENTIONS},
    }
    runs = run_in_turn(commands, plan.pairs)
    peers = {attention: runs[attention] for attention in ATTENTIONS}
    variants = [Variant.of(bundle) for bundle in bundles]
    return [step_row(variant, shape, threads, runs[str(variant)], peers) for variant in variants]


def step_row(
    variant: Variant,
    shape: Shape,
    threads: int,
    ours: Sequence[StepRun],
    peers: Mapping[str, Sequence[StepRun]],
) -> StepRow:
    """Set our runs against the peer's, the i-th beside the i-th.

    Raises:
        HetloraError: a first loss differs by more than LOSS_TOLERANCE of the base.
    """
    _check_same_work(variant, ours, peers)
    times = {name: _ratio(runs, ours, "seconds") for name, runs in peers.items()}
    memories = {name: _ratio(ours, runs, "peak_bytes") for name, runs in peers.items()}
    fastest, leanest = min(times, key=times.__getitem__), max(memories, key=memories.__getitem__)
    return StepRow(
        variant.base,
        variant.recompute,
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


def _ratio(over: Sequence[StepRun], under: Sequence[StepRun], name: str) -> float:
    return round(median_ratio(column_of(over, name), column_of(under, name)), 3)


def _check_same_work(
    variant: Variant, ours: Sequence[StepRun], peers: Mapping[str, Sequence[StepRun]]
) -> None:
    tolerance = LOSS_TOLERANCE[variant.base]
    for attention, runs in peers.items():
        for mine, theirs in zip(ours, runs, strict=True):
            # Written so that a loss that is no number fails too.
            if not abs(mine.first_loss - theirs.first_loss) <= tolerance * abs(theirs.first_loss):
                raise HetloraError(
                    f"first losses of {variant} and {attention} differ: not the same work",
                    got=f"{mine.first_loss:.6f} and {theirs.first_loss:.6f}",
                    expected=f"equal within {tolerance:g} of them",
                )
