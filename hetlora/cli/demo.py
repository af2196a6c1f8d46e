"""`hetlora demo`: one federated task on this machine, for real."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from hetlora.cli.output import JsonFlag, print_json
from hetlora.cli.parts import part


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Your own labelled text: a CSV, JSON or JSON lines file, or a folder with train and test."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the picture, the result and the adapter go.")] = Path(
        "demo-output"
    ),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each of the two runs.")] = 10,
    devices: Annotated[int, typer.Option(min=2, max=64, help="How many device processes.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, the adapters and the batches.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Watch unequal devices improve a real pretrained model together.

    Eight device processes of three kinds hold passages of the Python standard library's documentation, each
    of a few classes only. They train MiniLM at the rank that fits them, over real HTTP, against the real
    service; then the same fleet repeats the task with every device at the smallest rank. At the end: a
    picture of accuracy by round, and the global adapter as a PEFT folder that PyTorch scores alike.

    Example: `hetlora demo --out demo-output`
    """
    with part("all"):
        from benchmarks.demo.stage import DemoSettings, run_demo
    # As an interrupt would: the device processes end with the demo.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    result = run_demo(
        DemoSettings(data=data, out=out, rounds=rounds, devices=devices, seed=seed), quiet=as_json
    )
    if as_json:
        print_json(result)
