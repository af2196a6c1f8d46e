"""What does a round take of this device, and how near do the forecasts come?"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.progress import Progress

from benchmarks.device.federated_round import round_section
from benchmarks.device.forecasts import forecast_section
from benchmarks.device.micro_batches import micro_batch_section
from benchmarks.device.models import MODELS, bundles_in
from benchmarks.device.overhead import overhead_section
from benchmarks.device.plot import draw
from benchmarks.device.probes import probe_section
from benchmarks.device.resume import resume_section
from benchmarks.device.section import Section, Setting
from benchmarks.device.sustained import sustained_section
from benchmarks.device.traffic import traffic_section
from benchmarks.harness import RESULTS, begin, finish
from benchmarks.options import Results, Seed, Threads, choices_of, counts_of, values_of
from benchmarks.step_shapes import Shape
from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.output import JsonFlag, stderr, stdout
from hetlora.errors import SettingsError

_BOARD: Final = r"[a-z0-9][a-z0-9-]{0,39}"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

SectionOf = Callable[[Setting, Sequence[int], Sequence[Shape]], Section]
# In the order in which they are measured; the figures of all stand side by side in the JSON object.
SECTIONS: Final[Mapping[str, SectionOf]] = {
    "forecast": forecast_section,
    "micro-batch": micro_batch_section,
    "overhead": overhead_section,
    "resume": resume_section,
    "traffic": traffic_section,
    "probe": probe_section,
    "round": round_section,
    "sustained": sustained_section,
}


@app.command()
def bench_device(
    section: Annotated[str, typer.Option(help="What to measure, comma-separated.")] = ",".join(SECTIONS),
    model: Annotated[str, typer.Option(help="Models of random weights, comma-separated.")] = ",".join(MODELS),
    models: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which their bundles are, or are put: a board without PyTorch is given a copy of "
            "that of a workstation. A temporary one if not given."
        ),
    ] = None,
    bundle: Annotated[
        list[Path] | None, typer.Option(help="The folder of a bundle of your own instead; again for each.")
    ] = None,
    rank: Annotated[str, typer.Option(help="LoRA ranks, comma-separated.")] = "2,8,16,32",
    shape: Annotated[
        str,
        typer.Option(help="Texts x tokens of a batch, comma-separated; of pictures the number alone counts."),
    ] = "2x64,8x96",
    threads: Threads = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a process that count, after two others.")] = 5,
    pairs: Annotated[int, typer.Option(min=1, help="Steps beside bare ones that count.")] = 80,
    starts: Annotated[int, typer.Option(min=1, help="How often a killed round is gone on with.")] = 5,
    probes: Annotated[int, typer.Option(min=2, help="Fresh probes.")] = 6,
    sustained_seconds: Annotated[
        float,
        typer.Option(
            min=1, help="How long each bundle takes steps without a pause: 600 where heat may slow them."
        ),
    ] = 60,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="For a phone-class board: each model at the first and the last rank with the first batch, "
            "fewer steps, starts and probes.",
        ),
    ] = False,
    clock: Annotated[
        Literal["wall", "processor"],
        typer.Option(
            help="How steps are timed: on a machine that others use, too, the processor's time of one thread "
            "is what the wall's would be without them."
        ),
    ] = "wall",
    board: Annotated[
        str,
        typer.Option(
            help="A name for this board, such as raspberry-pi-5: its result stands beside those of others.",
            show_default="none",
        ),
    ] = "",
    seed: Seed = 0,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Measure what a round takes of this device, each part in processes of its own.

    - **forecast**: peak memory and step time as forecast and as measured, at each rank and batch. A bundle is
      tried once, as a device tries it before it promises to train: some steps at the last rank and batch.
      What those took over their forecast corrects all others. Of a process's steps the fastest counts.
    - **overhead**: the SDK's steps, with all that a session does in between, beside ONNX Runtime's bare ones.
    - **resume**: a round is killed; from opening its folder to the first new step, less what a round takes
      that begins, in steps. And how many steps lie between two checkpoints.
    - **traffic**: bytes of the files that go down and up, at each rank and precision; and what a device
      fetches of each bundle, by its runtime.
    - **micro-batch**: the same batch in one part, in halves, and so on: step time and peak memory.
    - **probe**: how far fresh probes lie from their median.
    - **round**: rounds with a real service on this machine, by EdgeFlowerTune's metrics and names.
    - **sustained**: steps without a pause: how much slower they become with heat, and the energy of one.

    Read: `memory_error_max` and `time_error_max` (the largest error of a forecast over the measured figure,
    less one, without its sign), the same before the trial as `plain_...`, and `rows`; `overhead_max`,
    `resume_steps_max`, `probe_deviation_max`, `drift_max`, and the rows of each part under its name. What no
    sensor tells is null.

    With --board NAME the files are device-NAME.json and .png, to be sent to the project: `make bench-report`
    puts them into the table of what was run where. Of some sections alone they are called by those.

    Example, on a board that has `hetlora[edge,bench]`: `hetlora bench device --models models/ --quick`
    """
    if board and not re.fullmatch(_BOARD, board):
        raise SettingsError("--board", got=board, expected="small letters, digits and dashes, 40 at most")
    beginning = begin()
    chosen = choices_of(section, "section", [*SECTIONS])
    ranks, shapes = counts_of(rank, "rank"), [Shape.parse(text) for text in values_of(shape, "shape")]
    if quick:
        ranks, shapes = [*dict.fromkeys((ranks[0], ranks[-1]))], shapes[:1]
        steps, pairs, starts, probes = min(steps, 2), min(pairs, 10), min(starts, 2), min(probes, 3)
        sustained_seconds = min(sustained_seconds, 20.0)
    figures: dict[str, Any] = {"board": board or None, "threads": threads, "clock": clock}
    with (
        tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch,
        Progress(console=stderr, transient=True) as progress,
    ):
        bar = progress.add_task("", total=len(chosen))

        def tell(what: str) -> None:
            progress.update(bar, description=what)

        bundles = _bundles(
            bundle or [], choices_of(model, "model", [*MODELS]), models or Path(scratch), seed, tell
        )
        work = Path(scratch)
        setting = Setting(
            bundles, threads, steps, clock, seed, pairs, starts, probes, sustained_seconds, work, tell
        )
        for name, own in bundles.items():
            if max(ranks) > own.manifest.adapter.max_rank:
                raise SettingsError(
                    f"{name} takes no such rank",
                    got=max(ranks),
                    expected=f"up to {own.manifest.adapter.max_rank}",
                )
        for name in chosen:
            done = SECTIONS[name](setting, ranks, shapes)
            figures |= done.figures
            progress.advance(bar)
            if not as_json:
                stdout.print(done.table)
    # So that some sections do not replace all of them.
    part = board or ("-".join(chosen) if len(chosen) < len(SECTIONS) else "")
    draw(figures, results / f"device{'-' if part else ''}{part}.png")
    packages = ("onnxruntime-training-cpu", "numpy")
    finish("device", figures, beginning=beginning, seed=seed, packages=packages, results=results, part=part)


def _bundles(
    own: Sequence[Path], names: Sequence[str], folder: Path, seed: int, tell: Callable[[str], None]
) -> dict[str, Bundle]:
    if own:
        return {path.name: open_bundle(path) for path in own}
    return bundles_in(folder, names, seed=seed, tell=tell)
