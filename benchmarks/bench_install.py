"""How large is an installed device, and how long does an app wait for its import?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from benchmarks.aggregation.measurements import FLOWER_VERSION
from benchmarks.harness import CONSTRAINTS, RESULTS, begin, finish, pinned
from benchmarks.installed import BYTECODE, Installed, Waited, installed_in, waited_for
from benchmarks.options import Results, Seed
from hetlora.cli.output import JsonFlag, stderr, stdout
from hetlora.errors import DependencyMissing

CHECKOUT: Final = CONSTRAINTS.parent
BARE: Final = CHECKOUT / "deploy" / "edge-requirements.txt"
SOURCES: Final = ("hetlora", "edge_sdk", "aggregator_service", "export", "benchmarks")
PINS: Final = ("--constraint", str(CONSTRAINTS))
# What an app pays when it names the SDK, when it names the client, and when it makes one.
STATEMENTS: Final = {
    "import edge_sdk": "import edge_sdk",
    "from edge_sdk import EdgeClient": "from edge_sdk import EdgeClient",
    "EdgeClient(...)": "from edge_sdk import EdgeClient; EdgeClient('http://127.0.0.1:9', 'p', folder)",
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def bench_install(
    starts: Annotated[int, typer.Option(min=1, help="Fresh processes for each import.")] = 10,
    peer: Annotated[bool, typer.Option("--peer", help="Install Flower, PyTorch and PEFT beside it.")] = False,
    seed: Seed = 0,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Install the edge part into an environment of its own, weigh it, and import it in fresh processes.

    `edge` is `pip install '.[edge]'`, `bare` is `deploy/edge-requirements.txt` without the dependencies that
    no device loads. Versions are those of `constraints.txt`, and pip compiles as it always does. Needs the
    package index, and 1 GB in the folder for temporary files (TMPDIR), 3 GB with the peer.

    Read: `installs` (`bytes` of site-packages without bytecode, and by package; `bytecode_bytes` beside
    them), `imports` (medians; `seconds` on the clock, `processor_seconds` of all threads).

    Example: `hetlora bench install --starts 3`
    """
    beginning = begin()
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        source = _copied(Path(scratch) / "source")
        wanted = {
            "edge": [[*PINS, f"{source}[edge]"]],
            "bare": [[*PINS, "--no-deps", "--requirement", str(BARE)], ["--no-deps", str(source)]],
        }
        if peer:  # torch first, as a looser request may draw GPU packages; Flower has pins of its own
            wanted["flwr + torch + peft"] = [[*PINS, *pinned("torch", "peft")], [FLOWER_VERSION]]
        installs = [_install(name, parts, Path(scratch) / name) for name, parts in wanted.items()]
        python = Path(scratch) / "edge" / "bin" / "python"
        imports = [waited_for(python, name, code, starts) for name, code in STATEMENTS.items()]
    if not as_json:
        for table in (_sizes(installs), _waits(imports)):
            stdout.print(table)
    figures = {"installs": [asdict(row) for row in installs], "imports": [asdict(row) for row in imports]}
    finish("install", figures, beginning=beginning, seed=seed, results=results)


def _copied(folder: Path) -> Path:
    """The sources apart, as pip leaves what it builds beside them."""
    for name in SOURCES:
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns(BYTECODE))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, folder / name)
    return folder


def _install(name: str, parts: Sequence[Sequence[str]], folder: Path) -> Installed:
    """Make an environment, by one call of pip a part.

    Raises:
        DependencyMissing: pip cannot install something.
    """
    stderr.print(f"installing {name}", style="dim")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    pip += ["--disable-pip-version-check", "--compile"]
    # Or nothing would be compiled, and every import would be.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for part in parts:
        done = subprocess.run([*pip, *part], capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise DependencyMissing(f"{name} cannot be installed", got=done.stderr[-400:].strip())
    return installed_in(folder, name)


def _sizes(installs: Sequence[Installed]) -> Table:
    table = Table(title="Installed", title_justify="left")
    for heading in ("what", "packages", "MB", "MB of bytecode", "largest, MB"):
        table.add_column(heading)
    for row in installs:
        largest = ", ".join(f"{one.name} {one.bytes / 1e6:.0f}" for one in row.packages[:6])
        table.add_row(
            row.name,
            str(len(row.packages)),
            f"{row.bytes / 1e6:.0f}",
            f"{row.bytecode_bytes / 1e6:.0f}",
            largest,
        )
    return table


def _waits(imports: Sequence[Waited]) -> Table:
    table = Table(title="Waited for, in a fresh process", title_justify="left")
    for heading in ("what", "seconds", "processor s", "slowest to import, ms"):
        table.add_column(heading)
    for row in imports:
        slowest = ", ".join(f"{name} {1000 * own:.0f}" for name, own in row.slowest.items())
        table.add_row(row.name, f"{row.seconds:.3f}", f"{row.processor_seconds:.3f}", slowest)
    return table
