"""How much memory, time and disk does it take to export a model of a billion parameters?"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Final, get_args

import typer
from rich.table import Table

from benchmarks.harness import RESULTS, Measured, begin, finish, run_measured
from benchmarks.large_llama import LLAMA_1B, write_large_llama
from benchmarks.options import Layers, Results, choices_of
from hetlora.cli.output import JsonFlag, stderr, stdout
from hetlora.errors import SettingsError
from hetlora.manifest import Precision

# The checkpoint of 2.5 GB and the largest bundle, in float32, of 5 GB.
_DISK_BYTES: Final = 9 * 10**9
_PROCESS: Final = "benchmarks.peers.export_process"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One export; bytes held are those of the process's own memory, resident ones count mapped files too.

    `libraries_bytes` were held before the export began, `weights_bytes` are the checkpoint's.
    """

    base: Precision
    seconds: float
    libraries_bytes: int
    peak_held_bytes: int
    peak_resident_bytes: int
    weights_bytes: int
    base_bytes: int
    graphs_bytes: int

    @property
    def export_bytes(self) -> int:
        """What the export itself held at its peak."""
        return self.peak_held_bytes - self.libraries_bytes


@app.command()
def bench_export(
    base: Annotated[
        str, typer.Option(help="How the frozen weights are stored, comma-separated.")
    ] = "float32,int8",
    layers: Layers = LLAMA_1B.num_hidden_layers,
    max_rank: Annotated[int, typer.Option(min=1, help="Highest LoRA rank of the bundle.")] = 32,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest text of the bundle.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights.")] = 0,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Export a model of Llama-3.2-1B's shape, each time in a process of its own.

    The model has 1,236 million random parameters in bfloat16 and three files; it is written first, and all
    is deleted at the end. Needs 9 GB in the folder for temporary files (TMPDIR).

    Read: `rows` (`peak_held_bytes` is the process's own memory at its peak, `libraries_bytes` what of it was
    there before the export, `peak_resident_bytes` counts the files that are mapped just then too).

    Example: `hetlora bench export --base int8`
    """
    beginning = begin()
    size = replace(LLAMA_1B, num_hidden_layers=layers)
    bases: list[Precision] = choices_of(base, "base", get_args(Precision))
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        work = Path(scratch)
        _check_disk(work)
        stderr.print("writing the model", style="dim")
        model = write_large_llama(work / "model", size, seed=seed)
        rows = [*_rows(model, bases, {"max_rank": max_rank, "max_tokens": max_tokens}, work)]
    if not as_json:
        stdout.print(_table(rows))
    figures = {
        "model": asdict(size),
        "rows": [{**asdict(row), "export_bytes": row.export_bytes} for row in rows],
    }
    packages = ("torch", "onnx", "onnxruntime-training-cpu", "safetensors")
    finish("export", figures, beginning=beginning, seed=seed, packages=packages, results=results)


def _check_disk(work: Path) -> None:
    free = shutil.disk_usage(work).free
    if free < _DISK_BYTES:
        raise SettingsError(
            "too little room for the benchmark", got=f"{free} bytes", expected=f"{_DISK_BYTES} in TMPDIR"
        )


def _rows(model: Path, bases: Sequence[Precision], limits: dict[str, int], work: Path) -> Iterator[ExportRow]:
    for base in bases:
        stderr.print(f"exporting {base}", style="dim")
        out, config = work / base, work / f"{base}.json"
        config.write_text(json.dumps({"model": str(model), "out": str(out), "base": base, **limits}))
        yield export_row(base, model, out, run_measured([sys.executable, "-m", _PROCESS, config]))
        shutil.rmtree(out)


def export_row(base: Precision, model: Path, out: Path, measured: Measured) -> ExportRow:
    """What one process told, and how large its files are."""
    told = measured.last_json()
    return ExportRow(
        base,
        round(told["seconds"], 2),
        told["libraries_bytes"],
        told["peak_held_bytes"],
        measured.peak_rss_bytes,
        _bytes_of(model, "*.safetensors"),
        _bytes_of(out, "base.bin"),
        _bytes_of(out, "*.onnx"),
    )


def _bytes_of(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def _table(rows: Sequence[ExportRow]) -> Table:
    table = Table(title="Export of a model of Llama-3.2-1B's shape", title_justify="left")
    table.add_column("base")
    for heading in ("seconds", "held MB", "of it libraries", "resident MB", "checkpoint MB", "base.bin MB"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.base,
            f"{row.seconds:.0f}",
            *(
                f"{size / 1e6:.0f}"
                for size in (
                    row.peak_held_bytes,
                    row.libraries_bytes,
                    row.peak_resident_bytes,
                    row.weights_bytes,
                    row.base_bytes,
                )
            ),
        )
    return table
