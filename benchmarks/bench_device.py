"""What does a round take of this device, and how near do the forecasts come?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from benchmarks.device.forecasts import forecast_section
from benchmarks.device.models import MODELS, bundles_in
from benchmarks.device.plot import draw_errors
from benchmarks.device.section import Section, Setting
from benchmarks.harness import RESULTS, begin, finish
from benchmarks.options import Seed, Threads, choices_of, counts_of, values_of
from benchmarks.step_shapes import Shape
from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.output import JsonFlag, stderr, stdout

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

SectionOf = Callable[[Setting, Sequence[int], Sequence[Shape]], Section]
# In the order in which they are measured; the figures of all stand side by side in the JSON object.
SECTIONS: Final[Mapping[str, SectionOf]] = {"forecast": forecast_section}


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
    clock: Annotated[
        Literal["wall", "processor"],
        typer.Option(
            help="How steps are timed: on a machine that others use, too, the processor's time of one thread "
            "is what the wall's would be without them."
        ),
    ] = "wall",
    seed: Seed = 0,
    results: Annotated[
        Path,
        typer.Option(help="Folder of device.json and device.png.", show_default="benchmarks/results"),
    ] = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Set what a device forecasts beside what it then takes, in a process for each rank and batch.

    Each bundle is tried once, as a device tries it before it promises to train: some steps at the last rank
    and batch, which a device with room for them would plan. What those took over their forecast corrects the
    forecasts of all others. Of a process's steps the fastest counts: other work only slows one down.

    Read: `memory_error_max` and `time_error_max` (the largest error of a forecast over the measured figure,
    less one, without its sign), the same before the trial as `plain_...`, and `rows`.

    Example, on a board that has `hetlora[edge,bench]`: `hetlora bench device --models models/`
    """
    beginning = begin()
    chosen = choices_of(section, "section", [*SECTIONS])
    ranks, shapes = counts_of(rank, "rank"), [Shape.parse(text) for text in values_of(shape, "shape")]
    figures: dict[str, Any] = {"threads": threads, "clock": clock}
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        setting = Setting(
            _bundles(bundle or [], choices_of(model, "model", [*MODELS]), models or Path(scratch), seed),
            threads,
            steps,
            clock,
            seed,
            Path(scratch),
            _tell,
        )
        for name in chosen:
            done = SECTIONS[name](setting, ranks, shapes)
            figures |= done.figures
            if not as_json:
                stdout.print(done.table)
    if "rows" in figures:
        results.mkdir(parents=True, exist_ok=True)
        draw_errors(figures["rows"], results / "device.png")
    packages = ("onnxruntime-training-cpu", "numpy")
    finish("device", figures, beginning=beginning, seed=seed, packages=packages, results=results)


def _bundles(own: Sequence[Path], names: Sequence[str], folder: Path, seed: int) -> dict[str, Bundle]:
    if own:
        return {path.name: open_bundle(path) for path in own}
    return bundles_in(folder, names, seed=seed, tell=_tell)


def _tell(progress: str) -> None:
    stderr.print(progress, style="dim", markup=False)
