"""Every benchmark at toy size: whether it runs to its end and leaves a result, never how long it takes.

`python -m benchmarks.toy` is what `make bench-tiny` runs.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import Progress

from benchmarks.options import choices_of
from benchmarks.result_file import parse_result, read_result
from hetlora.cli.output import stderr
from hetlora.errors import DataError, HetloraError

# A folder with a few rows in BANKING77's format, which is written first.
BANKING: Final = "{banking77}"
_STEP: Final = ("--quick", "--shape", "1x16")
_TASK: Final = ("--data", BANKING, "--seeds", "1", "--clients", "2", "--cohort", "2", "--steps", "1")

TOY: Final[Mapping[str, Sequence[str]]] = {
    "aggregation": ("--quick", "--adapters", "64", "--no-flower"),
    "chaos": ("--faults", "2", "--replicas", "1"),
    "clients": (
        "--model",
        "minilm-int8",
        "--client",
        "python-plain",
        "--shape",
        "1x8",
        "--threads",
        "1",
        "--quick",
    ),
    "console": (
        "--devices",
        "100",
        "--rounds",
        "30",
        "--cohort",
        "2",
        "--databases",
        "sqlite",
        "--times",
        "1",
    ),
    "data": (),
    "demo": ("--seeds", "0", "--rounds", "1", "--devices", "2"),
    "device": ("--model", "encoder", "--rank", "2", "--shape", "1x8", "--quick", "--sustained-seconds", "1"),
    "executorch": ("--quick", "--shape", "1x8", "--layers", "1"),
    "export": ("--layers", "1", "--base", "int8", "--max-rank", "4", "--max-tokens", "16"),
    "forecast": (
        "--model",
        "23M",
        "--base",
        "float32",
        "--recompute",
        "none",
        "--rank",
        "4",
        "--shape",
        "1x16",
    ),
    "install": ("--starts", "1"),
    "layers": (*_STEP, "--layers", "2", "--last-layers", "2,1"),
    "masking": ("--cohorts", "4"),
    "precision": (*_TASK, "--rounds", "1", "--processes", "1"),
    "quality": (
        *_TASK,
        "--rounds",
        "1",
        "--arms",
        "lora_most_rank,hetlora_gamma_0.99,full_fine_tuning",
        "--lost-share",
        "0.3",
        "--processes",
        "1",
    ),
    "round": ("--devices", "2", "--rounds", "1", "--steps", "1", "--batch-size", "2", "--max-tokens", "8"),
    "rules": (*_TASK, "--rules", "zero_pad,hetlora", "--megabytes", "1", "--processes", "1"),
    "service": (
        "--devices",
        "20",
        "--fleet",
        "20",
        "--databases",
        "sqlite",
        "--replicas",
        "1",
        "--features",
        "8",
        "--goal-count",
        "10",
        "--concurrency",
        "4",
        "--generators",
        "1",
        "--no-peer",
    ),
    "simulation": ("--devices-share", "0.001", "--rounds", "2", "--goal-count", "5"),
    "step": (*_STEP, "--threads", "1", "--layers", "1", "--base", "int8"),
}
# What leaves no result file: it measures nothing.
WITHOUT_RESULT: Final = frozenset({"data"})
# What this environment has: nothing is installed for a toy run.
PEER: Final = {f"HETLORA_PEER_{name}": sys.executable for name in ("TORCH_PEFT", "EXECUTORCH")}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def toy(
    only: Annotated[str, typer.Option(help="Questions, comma-separated; all by default.")] = ",".join(TOY),
) -> None:
    """Run every benchmark at toy size, and fail if one crashes or leaves no proper result.

    Exit code 1: at least one did. Its last words stand above.
    """
    failed = []
    with (
        tempfile.TemporaryDirectory(prefix="hetlora-toy-") as scratch,
        Progress(console=stderr, transient=True) as progress,
    ):
        work = Path(scratch)
        write_banking(work / "banking77")
        asked = choices_of(only, "only", [*TOY])
        bar = progress.add_task("", total=len(asked))
        for question in asked:
            progress.update(bar, description=question)
            try:
                check(question, TOY[question], work)
            except HetloraError as error:
                failed.append(question)
                progress.console.print(f"{question}: {error}", markup=False)
            progress.advance(bar)
    stderr.print(f"{len(asked) - len(failed)} of {len(asked)} benchmarks ran to their end", markup=False)
    if failed:
        raise typer.Exit(1)


def check(question: str, arguments: Sequence[str], work: Path) -> None:
    """Run one benchmark in a process of its own, as a user would, and read what it leaves.

    Raises:
        HetloraError: it crashed; the message ends with its last words.
        DataError: its last line, or its file, is no result; or these are not the same.
    """
    results = work / "results" / question
    words = [word.format(banking77=work / "banking77") for word in arguments]
    if question not in WITHOUT_RESULT:
        words += ["--results", str(results)]
    command = [sys.executable, "-m", "hetlora.cli", "bench", question, *words, "--json"]
    environment = {**PEER, **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise HetloraError("the benchmark failed", got=f"exit code {done.returncode}: {done.stderr[-2000:]}")
    if question in WITHOUT_RESULT:
        return
    told = parse_result(done.stdout.rstrip("\n").rpartition("\n")[2], "the last line")
    found = [read_result(path) for path in sorted(results.glob("*.json"))]
    if found != [told] or told.question != question:
        got = [path.name for path in results.glob("*")]
        raise DataError("the file is not what the last line says", got=got, expected=f"{question}*.json")


def write_banking(folder: Path) -> None:
    """A few rows of four intents, in BANKING77's format."""
    folder.mkdir(parents=True)
    for part, count in (("train", 6), ("test", 2)):
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "category"))
            writer.writerows(_questions(count))


def _questions(count: int) -> Iterator[tuple[str, str]]:
    for label in ("card_arrival", "lost_card", "exchange_rate", "top_up"):
        for number in range(count):
            yield f"question {number} about {label.replace('_', ' ')}", label


if __name__ == "__main__":
    app()
