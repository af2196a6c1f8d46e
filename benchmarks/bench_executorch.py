"""How does a training step compare with the flow that ExecuTorch's own examples show?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from sys import executable
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from benchmarks.harness import RESULTS, begin, finish, median_ratio, peer_python, pinned, run_measured
from benchmarks.llama import LlamaSize, export_llama, write_llama
from benchmarks.options import Layers, Pairs, Quick, Rank, Results, Seed, Steps, Threads, WarmUp, values_of
from benchmarks.step_runs import Plan, StepRun, column_of, median_of, run_in_turn, write_inputs, written
from benchmarks.step_shapes import Shape
from hetlora.bundle import Bundle
from hetlora.cli.output import JsonFlag, stderr, stdout
from hetlora.errors import HetloraError

PACKAGES: Final = ("torch", "executorch", "transformers", "peft")
RUNTIMES: Final = ("onnx", "executorch")
# Relative: both sides have the same float32 weights, which they step in the same way.
FIRST_LOSS_TOLERANCE: Final = 1e-5
LAST_LOSS_TOLERANCE: Final = 1e-4
# 23 million parameters.
SIZE: Final = LlamaSize(
    hidden_size=320,
    intermediate_size=896,
    num_hidden_layers=14,
    num_attention_heads=5,
    num_key_value_heads=5,
    vocab_size=16000,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@dataclass(frozen=True, slots=True)
class ExecutorchRow:
    """One runtime of ours beside ExecuTorch's own training module, of the same batch.

    `time_ratio` is the peer's seconds over ours, `cpu_time_ratio` the same in processor time, `memory_ratio`
    our bytes over the peer's: medians over pairs. Seconds and bytes are medians over the runs.
    """

    runtime: str
    shape: str
    time_ratio: float
    cpu_time_ratio: float
    memory_ratio: float
    seconds: float
    peer_seconds: float
    peak_bytes: int
    peer_peak_bytes: int
    peer_export_seconds: float
    peer_program_bytes: int
    runs: Mapping[str, Sequence[StepRun]]


@app.command()
def bench_executorch(
    shape: Annotated[str, typer.Option(help="Texts x tokens of a batch, comma-separated.")] = "1x64,4x96",
    threads: Threads = 1,
    rank: Rank = 8,
    warm_up: WarmUp = 2,
    steps: Steps = 5,
    pairs: Pairs = 2,
    layers: Layers = SIZE.num_hidden_layers,
    quick: Quick = False,
    seed: Seed = 0,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Take the same SGD steps with one bundle in both runtimes and with ExecuTorch's own flow.

    The flow is that of ExecuTorch's examples: a module that answers its loss, exported with its backward
    pass for portable kernels, its training module and its SGD. Its program is for one rank and one batch; a
    bundle takes any. The model is a Llama of 23 million random parameters with PEFT's LoRA; SiLU is written
    out for the peer, which has no kernel for its backward pass. Both sides must show the same losses. The
    first time, the peer's environment of 1.5 GB is installed in `.cache/peers`.

    Read: `rows` (`time_ratio` is the peer's seconds over ours, `memory_ratio` our peak over the peer's).

    Example: `hetlora bench executorch --quick --shape 1x16 --layers 2`
    """
    beginning = begin()
    shapes = [Shape.parse(text) for text in values_of(shape, "shape")]
    plan = Plan(rank, warm_up, 2 if quick else steps, 1 if quick else pairs, seed)
    size = replace(SIZE, num_hidden_layers=layers)
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        work, requirements = Path(scratch), pinned(*PACKAGES)
        _tell("preparing ExecuTorch")
        peer = peer_python("executorch", requirements)
        model = write_llama(work / "model", size, seed=seed)
        _tell("exporting our bundle")
        started = time.perf_counter()
        longest = max(one.tokens for one in shapes)
        bundle = export_llama(
            model, work / "bundle", "float32", "none", max_rank=rank, max_tokens=longest, runtimes=RUNTIMES
        )
        export_seconds = round(time.perf_counter() - started, 2)
        rows: list[ExecutorchRow] = []
        for one in shapes:
            _tell(f"steps of {one} tokens")
            rows += compare(bundle, model, one, threads, plan, work / str(one), peer=peer)
    if not as_json:
        stdout.print(_table(rows))
    figures = {
        "model": asdict(size),
        "plan": asdict(plan),
        "threads": threads,
        "export_seconds": export_seconds,  # of both runtimes' graphs, for every rank and batch
        "peer": {"name": "ExecuTorch's training module", "versions": requirements},
        "rows": [asdict(row) for row in rows],
    }
    packages = ("onnxruntime-training-cpu", "executorch", "torch", "numpy")
    finish("executorch", figures, beginning=beginning, seed=seed, packages=packages, results=results)


def compare(
    bundle: Bundle, model: Path, shape: Shape, threads: int, plan: Plan, folder: Path, *, peer: Path
) -> list[ExecutorchRow]:
    """Take the same steps in each of our runtimes and with the peer; one row a runtime.

    Args:
        peer: a Python that has ExecuTorch, PyTorch and PEFT.

    Raises:
        HetloraError: a run failed, or the first losses say that the two sides do not do the same work.
    """
    shared = write_inputs(bundle.manifest, shape, threads, plan, folder)
    program = folder / "peer.pte"
    theirs = {
        **shared,
        "model": str(model),
        "program": str(program),
        "weight_decay": bundle.manifest.optimizer.weight_decay,
    }
    exported = run_measured(written(theirs, "executorch_export.py", peer, folder / "export.json")).last_json()
    commands = {
        runtime: written(
            {
                **shared,
                "bundle": str(bundle.folder),
                "runtime": runtime,
                "step_options": {"optimizer": "sgd"},
            },
            "onnx_step.py",
            executable,
            folder / f"{runtime}.json",
        )
        for runtime in RUNTIMES
    }
    runs = run_in_turn(
        {**commands, "peer": written(theirs, "executorch_step.py", peer, folder / "peer.json")}, plan.pairs
    )
    return [
        executorch_row(runtime, shape, runs[runtime], runs["peer"], exported, program.stat().st_size)
        for runtime in RUNTIMES
    ]


def executorch_row(
    runtime: str,
    shape: Shape,
    ours: Sequence[StepRun],
    peers: Sequence[StepRun],
    exported: Mapping[str, Any],
    program_bytes: int,
) -> ExecutorchRow:
    """Set our runs against the peer's, the i-th beside the i-th.

    Raises:
        HetloraError: losses differ by more than the tolerances.
    """
    for mine, their in zip(ours, peers, strict=True):
        _check_same_work(runtime, mine.first_loss, their.first_loss, FIRST_LOSS_TOLERANCE)
        _check_same_work(runtime, mine.last_loss, their.last_loss, LAST_LOSS_TOLERANCE)
    return ExecutorchRow(
        runtime,
        str(shape),
        _ratio(peers, ours, "seconds"),
        _ratio(peers, ours, "cpu_seconds"),
        _ratio(ours, peers, "peak_bytes"),
        round(median_of(ours, "seconds"), 4),
        round(median_of(peers, "seconds"), 4),
        int(median_of(ours, "peak_bytes")),
        int(median_of(peers, "peak_bytes")),
        round(exported["seconds"], 2),
        program_bytes,
        {"ours": ours, "peer": peers},
    )


def _check_same_work(runtime: str, ours: float, theirs: float, tolerance: float) -> None:
    # Written so that a loss that is no number fails too.
    if not abs(ours - theirs) <= tolerance * abs(theirs):
        what = f"losses of {runtime} and ExecuTorch's flow differ: not the same work"
        raise HetloraError(what, got=ours, expected=theirs)


def _ratio(over: Sequence[StepRun], under: Sequence[StepRun], name: str) -> float:
    return round(median_ratio(column_of(over, name), column_of(under, name)), 3)


def _tell(progress: str) -> None:
    stderr.print(progress, style="dim", markup=False)


def _table(rows: Sequence[ExecutorchRow]) -> Table:
    table = Table(title="One training step, ours and ExecuTorch's own flow", title_justify="left")
    for heading in ("runtime", "batch"):
        table.add_column(heading)
    for heading in ("ours s", "peer s", "time ratio", "by CPU time", "ours MB", "peer MB", "memory ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.runtime,
            row.shape,
            f"{row.seconds:.3f}",
            f"{row.peer_seconds:.3f}",
            f"{row.time_ratio:.2f}",
            f"{row.cpu_time_ratio:.2f}",
            f"{row.peak_bytes / 1e6:.0f}",
            f"{row.peer_peak_bytes / 1e6:.0f}",
            f"{row.memory_ratio:.2f}",
        )
    return table
