"""What does a round cost in seconds, bytes and peak memory, on each device and on the service?"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.bundle_bytes import bundle_bytes
from benchmarks.data.library_parts import LIBRARY_PARTS
from benchmarks.data.passages import standard_library_passages
from benchmarks.demo.model import model_folder
from benchmarks.harness import RESULTS, begin, finish, peer_python, pinned
from benchmarks.options import Results
from benchmarks.peers.training_step import NAME, PACKAGES, Step, compare_steps
from benchmarks.round_cost import RoundCost, Setup, measure_rounds
from edge_sdk.examples import Example
from export.bundle_writer import export_bundle
from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.output import JsonFlag, stderr, stdout
from hetlora.messages.device import TrainingSettings

TARGETS = ("query", "key", "value", "attention.output.dense")
MAX_RANK = 32

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def bench_round(
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle to use; by default one is exported from the model.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="The Hugging Face folder behind the bundle; by default the demo's MiniLM."),
    ] = None,
    devices: Annotated[
        int, typer.Option(min=1, max=16, help="Device processes, of three kinds in turn.")
    ] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the first one also downloads the bundle.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of a device in one round.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in one step.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=3, help="Tokens of an example.")] = 48,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each training process.")] = 1,
    pairs: Annotated[int, typer.Option(min=0, help="Paired runs against PyTorch + PEFT; 0 for none.")] = 2,
    rank: Annotated[int, typer.Option(min=1, help="Rank of those paired runs.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of adapters, batches and the devices' texts.")] = 0,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Measure whole rounds: a real service and real devices, one process each, over HTTP on this machine.

    The planner gives the devices ranks 4, 16 and 32 by the traffic that each allows itself. Then the same
    local steps run in PyTorch + PEFT, in turn with ours; the first time, that installs an environment of
    1.3 GB in `.cache/peers`, which takes a minute or more.

    Read: `rounds` (seconds from the start to the commit; `training_share` is the slowest device's training in
    them), `assignments` (each device in each round), `processes` (peak resident memory; seconds of processor
    time while the run lasted), `peer` (`time_ratio` is the peer's seconds over ours, `cpu_time_ratio` the
    same in processor time, which a busy machine moves less, `memory_ratio` our peak over the peer's).

    Example: `hetlora bench round --rounds 3 --steps 5 --pairs 0`
    """
    beginning = begin()
    # As an interrupt would: the processes that were started end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    training = TrainingSettings(steps=steps, batch_size=batch_size, max_tokens=max_tokens, pruning_decay=1.0)
    setup = Setup(devices=devices, rounds=rounds, training=training, threads=threads, seed=seed)
    passages = standard_library_passages()
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        work = Path(scratch)
        model = model or model_folder()
        opened = _export(model, max_tokens, work / "bundle") if bundle is None else open_bundle(bundle)
        step = Step(opened, model, rank, training, threads, seed) if pairs else None
        cost = measure_rounds(opened, setup, passages, work, progress=_tell)
        peer = _compare(step, passages, work, pairs) if step else None
        figures = {
            "settings": asdict(setup) | {"training": training.model_dump()},
            "bundle": _facts(opened),
            **asdict(cost),
            "peer": peer,
        }
    if not as_json:
        _show(cost, peer)
    packages = ("onnxruntime-training-cpu", "numpy", "tokenizers", "fastapi", "uvicorn")
    finish("round", figures, beginning=beginning, seed=seed, packages=packages, results=results)


def _export(model: Path, max_tokens: int, out: Path) -> Bundle:
    _tell("exporting the model")
    return export_bundle(
        str(model),
        out,
        labels={part.label: part.description for part in LIBRARY_PARTS},
        targets=TARGETS,
        max_rank=MAX_RANK,
        max_tokens=max_tokens,
    )


def _compare(step: Step, passages: Sequence[Example], work: Path, pairs: int) -> dict[str, Any]:
    _tell(f"preparing {NAME}")
    requirements = pinned(*PACKAGES)
    python = peer_python("torch-peft", requirements)
    _tell(f"training steps against {NAME}, paired runs: {pairs}")
    return {"versions": requirements} | compare_steps(step, passages, work, peer=python, pairs=pairs)


def _facts(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "base_model": manifest.base_model.id,
        "parameters": manifest.base_model.parameters,
        "modules": len(manifest.adapter.modules),
        "size_bytes": bundle_bytes(bundle, manifest.files),
        "adapter_bytes_per_rank": manifest.cost_model.adapter_bytes_per_rank,
    }


def _tell(progress: str) -> None:
    stderr.print(progress, style="dim", markup=False)


def _show(cost: RoundCost, peer: dict[str, Any] | None) -> None:
    rounds = Table("round", "seconds", "training", "MB down", "MB up", title="Rounds", title_justify="left")
    for row in cost.rounds:
        rounds.add_row(
            str(row.round_index + 1),
            f"{row.seconds:.1f}",
            f"{row.training_share:.0%}",
            f"{row.downloaded_bytes / 1e6:.1f}",
            f"{row.uploaded_bytes / 1e6:.2f}",
        )
    stdout.print(rounds)
    headings = ("process", "rank", "peak MB", "CPU s", "training s", "adapter MB down", "MB up")
    processes = Table(
        *headings,
        title="Processes: memory and CPU of the whole run, the rest of its last round",
        title_justify="left",
    )
    last = {row.device: row for row in cost.assignments}
    for process in cost.processes:
        cells = [f"{process.peak_rss_bytes / 1e6:.0f}", f"{process.cpu_seconds:.1f}"]
        if work := last.get(process.process):
            sizes = (f"{size / 1e6:.2f}" for size in (work.adapter_downloaded_bytes, work.uploaded_bytes))
            processes.add_row(process.process, str(work.rank), *cells, f"{work.training_seconds:.1f}", *sizes)
        else:
            processes.add_row(process.process, "", *cells)
    stdout.print(processes)
    if peer:
        agree = "agree" if peer["first_losses_agree"] else "DIFFER: the ratios mean nothing"
        stdout.print(
            f"Against {peer['name']}, rank {peer['rank']}, batch {peer['batch']} x {peer['tokens']}: "
            f"{peer['time_ratio']:.2f} times as fast ({peer['cpu_time_ratio']:.2f} by processor time), "
            f"with {peer['memory_ratio']:.2f} of its peak memory; first losses {agree}."
        )
