"""How fast does each client take the same steps, and what does a user fetch of it?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import Progress

from benchmarks.clients.models import MODELS
from benchmarks.clients.processes import CLIENTS
from benchmarks.clients.rows import LOSS_TOLERANCE, ClientRow, client_rows, run_in_turn, steps_table
from benchmarks.clients.sizes import apk_sizes, page_sizes, sizes_table
from benchmarks.clients.training import Training
from benchmarks.clients.web import built_page
from benchmarks.device.models import bundles_in
from benchmarks.harness import RESULTS, begin, finish, machine
from benchmarks.options import Quick, Rank, Results, Seed, Steps, WarmUp, choices_of, counts_of, values_of
from benchmarks.step_shapes import Shape
from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.output import JsonFlag, stderr, stdout
from hetlora.errors import DependencyMissing

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

SECTIONS: Final = ("steps", "sizes")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured of each bundle."""

    clients: Sequence[str]
    rank: int
    shapes: Sequence[Shape]
    threads: Sequence[int]
    warm_up: int
    steps: int
    starts: int
    seed: int


@app.command()
def bench_clients(
    section: Annotated[str, typer.Option(help="What to measure, comma-separated.")] = ",".join(SECTIONS),
    model: Annotated[
        str, typer.Option(help=f"Models of random weights, comma-separated: {', '.join(MODELS)}.")
    ] = "minilm-float32,minilm-int8",
    models: Annotated[
        Path | None,
        typer.Option(help="Folder in which their bundles are, or are put. A temporary one if not given."),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="A bundle of your own, exported with --runtime onnx,android,web; again for each."),
    ] = None,
    client: Annotated[str, typer.Option(help="Clients, comma-separated.")] = ",".join(CLIENTS),
    rank: Rank = 8,
    shape: Annotated[str, typer.Option(help="Texts x tokens of a batch, comma-separated.")] = "8x64",
    threads: Annotated[
        str,
        typer.Option(help="Threads of each client, comma-separated; more than there are cores are left out."),
    ] = "1,2",
    warm_up: WarmUp = 3,
    steps: Steps = 10,
    starts: Annotated[int, typer.Option(min=1, help="How often each client is started, all in turn.")] = 3,
    quick: Quick = False,
    seed: Seed = 0,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Take the same steps with every client, each a process of its own, all in turn.

    - **python**: the SDK, in ONNX Runtime's training session. **python-plain**: the SDK over the graph that
      the other clients have, in a plain session.
    - **jvm**: the Kotlin client on this machine's Java, with ONNX Runtime as published for desktop Java.
    - **node**, **chromium**: the browser client in WebAssembly; in Chromium in the page's worker, which takes
      several threads in an isolated page alone. In Node it has one.

    All have the same bundle, adapter, batch and settings. A client whose loss at any step differs from
    Python's gets no figures, nor does one that is missing here: its row says why.

    Read: `rows` with `seconds` a step, `ratio` (a client's seconds over Python's), `loss_difference`; and
    `page` and `apk`, bytes of files. No row is of a phone: the same code on another processor.
    """
    beginning = begin()
    chosen = choices_of(section, "section", SECTIONS)
    names = [*dict.fromkeys(("python", *choices_of(client, "client", [*CLIENTS])))]
    shapes = [Shape.parse(text) for text in values_of(shape, "shape")]
    steps, starts = (2, 1) if quick else (steps, starts)
    usable = [count for count in counts_of(threads, "threads") if count <= machine()["cores"]]
    asked = Asked(names, rank, shapes, usable or [1], warm_up, steps, starts, seed)
    figures: dict[str, Any] = {"loss_tolerance": LOSS_TOLERANCE, "warm_up": warm_up, "steps": steps}
    with (
        tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch,
        Progress(console=stderr, transient=True) as progress,
    ):
        bar = progress.add_task("", total=None)

        def tell(what: str) -> None:
            progress.update(bar, description=what)

        if "steps" in chosen:
            found = _bundles(bundle or [], model, models or Path(scratch), seed, tell)
            rows = _rows(found, asked, Path(scratch), tell)
            figures["rows"] = [asdict(row) for row in rows]
            if not as_json:
                stdout.print(steps_table(rows))
        if "sizes" in chosen:
            tell("sizes")
            figures |= _sizes(is_told=not as_json)
    packages = ("onnxruntime-training-cpu", "numpy")
    finish("clients", figures, beginning=beginning, seed=seed, packages=packages, results=results)


def _bundles(
    own: Sequence[Path], model: str, folder: Path, seed: int, tell: Callable[[str], None]
) -> dict[str, Bundle]:
    if own:
        return {path.name: open_bundle(path) for path in own}
    names = choices_of(model, "model", [*MODELS])
    return bundles_in(folder, names, seed=seed, tell=tell, models=MODELS)


def _rows(
    bundles: Mapping[str, Bundle], asked: Asked, scratch: Path, tell: Callable[[str], None]
) -> list[ClientRow]:
    rows: list[ClientRow] = []
    clients = {name: CLIENTS[name] for name in asked.clients}
    for name, bundle in bundles.items():
        for shape in asked.shapes:
            training = Training(bundle, asked.rank, shape, asked.warm_up + asked.steps, asked.seed)
            for threads in asked.threads:
                case = scratch / f"case-{len(rows)}"
                tell(f"{name}, {shape}")
                training.write(case)
                outcomes = run_in_turn(clients, case, threads, starts=asked.starts, tell=tell)
                rows += client_rows(name, training, threads, outcomes, asked.warm_up)
    return rows


def _sizes(*, is_told: bool) -> dict[str, Any]:
    try:
        page, words = page_sizes(built_page()), ""
    except DependencyMissing as error:
        page, words = [], str(error)
    apks = apk_sizes()
    if is_told:
        stdout.print(sizes_table(page, apks))
        stdout.print(words or "", "" if apks else "No APK has been built here.")
    told = {"page": [asdict(own) for own in page], "apk": [asdict(own) for own in apks]}
    return told | ({"page_words": words} if words else {})
