"""What every benchmark shares: the machine's description, measured processes, peers, paired runs, result files.

A script is `bench_<question>.py` with a typer `app`; its docstring's first line is the question. It ends with
`finish`, which writes `benchmarks/results/<question>.json` and prints the same object on the last line.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from hetlora.errors import DependencyMissing

FOLDER: Final = Path(__file__).parent
RESULTS: Final = FOLDER / "results"
PEERS: Final = FOLDER.parent / ".cache" / "peers"
CONSTRAINTS: Final = FOLDER.parent / "constraints.txt"


@dataclass(frozen=True, slots=True)
class Measured:
    """One finished process: wall seconds, peak resident memory, and its standard output."""

    seconds: float
    peak_rss_bytes: int
    output: str

    def last_json(self) -> dict[str, Any]:
        """The JSON object on the last line of the output."""
        loaded: dict[str, Any] = json.loads(self.output.strip().splitlines()[-1])
        return loaded


@dataclass(frozen=True, slots=True)
class Pair:
    """One run of ours and one of the peer's, back to back on the same machine."""

    ours: Measured
    peer: Measured


def questions() -> dict[str, str]:
    """The benchmarks by name, each with the first line of its docstring."""
    found = {}
    for path in sorted(FOLDER.glob("bench_*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem.removeprefix("bench_")] = text.partition("\n")[0]
    return found


def machine() -> dict[str, Any]:
    """What a figure depends on: processor, cores, memory, system, Python."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions(*distributions: str) -> dict[str, str]:
    """The installed versions of the named distributions."""
    return {name: importlib.metadata.version(name) for name in ("hetlora", *distributions)}


def run_measured(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end and account for it alone, as the operating system saw it.

    Raises:
        RuntimeError: the command failed; the message ends with what it printed.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in kilobytes on Linux
    return Measured(time.perf_counter() - started, usage.ru_maxrss * unit, output)


def paired(ours: Callable[[], Measured], peer: Callable[[], Measured], *, pairs: int) -> list[Pair]:
    """Run both in turn, so that a drift of the machine's speed meets both alike."""
    return [Pair(ours(), peer()) for _ in range(pairs)]


def median_ratio(pairs: Sequence[Pair], figure: Callable[[Measured], float]) -> float:
    """The median over pairs of our figure divided by the peer's."""
    return statistics.median(figure(pair.ours) / figure(pair.peer) for pair in pairs)


def peer_python(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of a peer's own environment, made on first use in `.cache/peers`.

    Versions that the project pins hold for the peer too, so both sides run the same libraries.
    """
    folder = PEERS / name
    python = folder / "bin" / "python"
    wanted = "\n".join(requirements)
    stamp = folder / ".requirements"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for requirement in requirements:  # in order: torch first, at its exact version
        done = subprocess.run([*pip, "--constraint", str(CONSTRAINTS), requirement], check=False)
        if done.returncode != 0:
            raise DependencyMissing(f"the peer {name} cannot be installed", got=requirement)
    stamp.write_text(wanted)
    return python


def finish(
    question: str,
    figures: Mapping[str, Any],
    *,
    seed: int,
    started_at: datetime,
    packages: Sequence[str] = (),
    write: bool = True,
) -> None:
    """Write the result file and print the same object on one last line."""
    result = {
        "question": question,
        "command": f"hetlora bench {question} {' '.join(sys.argv[3:])}".strip(),
        "seed": seed,
        "started_at": started_at.isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "versions": versions(*packages),
        **{
            name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
            for name, value in figures.items()
        },
    }
    if write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{question}.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")


def now() -> datetime:
    """The time, for `started_at`."""
    return datetime.now(UTC)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
