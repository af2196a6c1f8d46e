"""One local training step, hetlora's against PyTorch with PEFT: same numbers in, paired runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import executable
from typing import Any, Final

import numpy as np

from benchmarks.data.passages import MIN_WORDS
from benchmarks.harness import Measured, median_ratio, paired, run_measured
from edge_sdk.batching.tokens import TextEncoder
from edge_sdk.examples import Example
from export.prototype_classifier import read_prototypes
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import RankOutOfRange
from hetlora.graph_names import LOGIT_SCALE
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import write_peft_folder

NAME: Final = "PyTorch + PEFT"
PACKAGES: Final = ("torch", "transformers", "peft")
# Both compute in float32, in another order.
LOSS_TOLERANCE: Final = 1e-4

_FOLDER: Final = Path(__file__).parent
_WARM_UP_STEPS: Final = 1

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """What both sides are given: a bundle, the model folder that it was exported from, and the plan.

    Raises:
        RankOutOfRange: the bundle's adapters cannot have this rank.
    """

    bundle: Bundle
    model: Path
    rank: int
    training: TrainingSettings
    threads: int
    seed: int

    def __post_init__(self) -> None:
        max_rank = self.bundle.manifest.adapter.max_rank
        if not 1 <= self.rank <= max_rank:
            raise RankOutOfRange("rank of the comparison", got=self.rank, expected=f"1 to {max_rank}")


def compare_steps(
    step: Step, passages: Sequence[Example], work: Path, *, peer: Path, pairs: int
) -> dict[str, Any]:
    """Take the same steps on both sides, `pairs` times in turn, each run in a process of its own.

    `peer` is a Python that has PACKAGES; files go to `work`. In the answer `time_ratio` is the peer's seconds
    per step over ours, `cpu_time_ratio` the same in processor time, which other work on the machine moves
    less, and `memory_ratio` our peak resident memory over the peer's.

    Raises:
        HetloraError: one of the runs failed.
    """
    batch, tokens = _write_inputs(step, passages, work)
    config = work / "config.json"
    runs = paired(
        lambda: run_measured([executable, _FOLDER / "onnx_step.py", config]),
        lambda: run_measured([peer, _FOLDER / "torch_peft_step.py", config]),
        pairs=pairs,
    )
    return {
        "name": NAME,
        "batch": batch,
        "tokens": tokens,
        "rank": step.rank,
        "steps": step.training.steps,
        "threads": step.threads,
        **_figures([_row(pair.ours) for pair in runs], [_row(pair.peer) for pair in runs]),
    }


def _row(run: Measured) -> Row:
    return {
        **run.last_json(),
        "peak_rss_bytes": run.peak_rss_bytes,
        "process_seconds": round(run.seconds, 2),
    }


def _figures(ours: list[Row], peer: list[Row]) -> dict[str, Any]:
    def column(rows: list[Row], name: str) -> list[float]:
        return [row[name] for row in rows]

    def ratio(name: str, over: list[Row], under: list[Row]) -> float:
        return round(median_ratio(column(over, name), column(under, name)), 3)

    losses = zip(column(ours, "first_loss"), column(peer, "first_loss"), strict=True)
    difference = max(abs(left - right) for left, right in losses)
    return {
        "time_ratio": ratio("seconds_per_step", peer, ours),
        "cpu_time_ratio": ratio("cpu_seconds_per_step", peer, ours),
        "memory_ratio": ratio("peak_rss_bytes", ours, peer),
        "first_loss_difference": difference,
        "first_losses_agree": difference <= LOSS_TOLERANCE,
        "pairs": [{"ours": left, "peer": right} for left, right in zip(ours, peer, strict=True)],
    }


def _write_inputs(step: Step, passages: Sequence[Example], work: Path) -> tuple[int, int]:
    """Write config, arrays and adapter for both scripts; return (batch, tokens)."""
    bundle, manifest, training = step.bundle, step.bundle.manifest, step.training
    rng = np.random.default_rng(step.seed)
    write_peft_folder(
        nonzero_adapter(manifest.adapter, step.rank, rng),
        work / "adapter",
        base_model=manifest.base_model.id,
    )
    steps = _WARM_UP_STEPS + training.steps
    count = steps * training.batch_size
    tokens = min(training.max_tokens, manifest.max_tokens)
    assert manifest.graphs.tokenizer is not None, manifest.task
    encoder = TextEncoder(bundle.path(manifest.graphs.tokenizer), manifest.inputs, max_tokens=tokens)
    # As many passages in a row as fill all tokens, for each word is at least one.
    drawn = rng.integers(len(passages), size=(count, 1 + tokens // MIN_WORDS))
    encoded = encoder.encode([" ".join(passages[index].text for index in row) for row in drawn])
    arrays = {**encoded, "labels": rng.integers(len(manifest.labels), size=count)}
    shaped = {
        name: array.reshape(steps, training.batch_size, *array.shape[1:]) for name, array in arrays.items()
    }
    np.savez(work / "arrays.npz", allow_pickle=False, prototypes=read_prototypes(bundle), **shaped)
    config = {
        "bundle": str(bundle.folder),
        "model": str(step.model),
        "adapter": str(work / "adapter"),
        "arrays": str(work / "arrays.npz"),
        "threads": step.threads,
        "warm_up": _WARM_UP_STEPS,
        "learning_rate": training.learning_rate,
        "optimizer": manifest.optimizer.model_dump(),
        "logit_scale": LOGIT_SCALE,
    }
    (work / "config.json").write_text(json.dumps(config))
    return training.batch_size, encoded[manifest.inputs[0].name].shape[1]


def nonzero_adapter(spec: AdapterSpec, rank: int, rng: np.random.Generator) -> Adapter:
    """With lora_B at zero, as PEFT starts, equal first losses would say nothing about the adapter."""
    start = initial_adapter(spec, rank, rng)
    return Adapter(
        spec,
        {
            module.name: LoraFactors(
                factors.lora_A, rng.normal(0, 0.02, factors.lora_B.shape).astype(np.float32)
            )
            for module, factors in start
        },
    )
