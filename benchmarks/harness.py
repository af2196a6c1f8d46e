"""What every benchmark shares: the machine, measured processes, peers, paired runs, result files.

A script is `bench_<question>.py` with a typer `app`; its docstring's first line is the question. It calls
`begin` first and `finish` last, which writes `<question>.json` and prints the same object on one line.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from hetlora.errors import DependencyMissing, HetloraError

FOLDER: Final = Path(__file__).parent
RESULTS: Final = FOLDER / "results"
PEERS: Final = FOLDER.parent / ".cache" / "peers"
CONSTRAINTS: Final = FOLDER.parent / "constraints.txt"

# On Linux ru_maxrss of a child starts at the resident size of the process that forked it, so a benchmark that
# has loaded torch would find 500 MB in everything it starts. The command is therefore started and accounted
# for by this process of 11 MB, which is the least that can be measured. A file in /proc would tell the peak
# without that floor, but only while the command still runs.
_LAUNCHER: Final = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
exit_code = subprocess.call(sys.argv[1:])
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print("\\n" + json.dumps([exit_code, seconds, peak if sys.platform == "darwin" else 1024 * peak]))
"""


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


@dataclass(frozen=True, slots=True)
class Beginning:
    """When a benchmark began, and how many processes the machine was already busy with."""

    started_at: datetime
    load_average: float


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


def run_measured(command: Sequence[str | Path]) -> Measured:
    """Run a command to its end and account for it and its own children, but for nothing else.

    Raises:
        HetloraError: the command failed; the message ends with what it wrote to standard error.
    """
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *map(str, command)]
    done = subprocess.run(launch, capture_output=True, text=True, check=False)
    output, _, account = done.stdout.rstrip("\n").rpartition("\n")
    # Where the launcher itself failed, mostly as there is no such command, it leaves no account.
    exit_code, seconds, peak_rss_bytes = json.loads(account) if done.returncode == 0 else (None, 0, 0)
    if exit_code != 0:
        what = f"{' '.join(Path(word).name for word in map(str, command[:2]))} failed"
        raise HetloraError(what, got=f"exit code {exit_code}: {done.stderr[-400:].strip()}")
    return Measured(seconds, peak_rss_bytes, output)


def paired(ours: Callable[[], Measured], peer: Callable[[], Measured], *, pairs: int) -> list[Pair]:
    """Run both in turn, so that a drift of the machine's speed meets both alike."""
    return [Pair(ours(), peer()) for _ in range(pairs)]


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median, over pairs, of one figure divided by the other of the same pair."""
    return statistics.median(over / under for over, under in zip(numerators, denominators, strict=True))


def pinned(*packages: str) -> list[str]:
    """`name==version` of each package as the project pins it, so that a peer runs the same libraries.

    Raises:
        DependencyMissing: not run from a checkout, or a package that the project does not pin.
    """
    try:
        lines = CONSTRAINTS.read_text().splitlines()
    except OSError as error:
        raise DependencyMissing("peers need the pinned versions of a checkout", got=error.strerror) from error
    pins = {line.partition("==")[0]: line for line in lines}
    missing = [name for name in packages if name not in pins]
    if missing:
        raise DependencyMissing(f"not in {CONSTRAINTS.name}", got=missing)
    return [pins[name] for name in packages]


def peer_python(
    name: str, requirements: Sequence[str], peers: Path = PEERS, *, constrained: bool = True
) -> Path:
    """The interpreter of a peer's own environment, made on first use in the folder `peers`.

    Requirements are installed in their order; what the project pins holds for their dependencies too, unless
    the peer asks for other versions and is not `constrained`. Where nothing can be installed, the environment
    variable HETLORA_PEER_<NAME>, such as HETLORA_PEER_TORCH_PEFT, names an interpreter that has them.

    Raises:
        DependencyMissing: pip cannot install a requirement.
    """
    if given := os.environ.get(f"HETLORA_PEER_{name.upper().replace('-', '_')}"):
        return Path(given)
    folder = peers / name
    python, stamp, wanted = folder / "bin" / "python", folder / ".requirements", "\n".join(requirements)
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraint = ["--constraint", str(CONSTRAINTS)] if constrained else []
    for requirement in requirements:
        command = [*pip, *constraint, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            what = f"the peer {name} cannot be installed: {requirement}"
            raise DependencyMissing(what, got=done.stderr[-400:].strip())
    stamp.write_text(wanted)
    return python


def begin() -> Beginning:
    """Note the time and the machine's load before the benchmark adds its own."""
    return Beginning(datetime.now(UTC), round(os.getloadavg()[0], 2))


def finish(
    question: str,
    figures: Mapping[str, Any],
    *,
    beginning: Beginning,
    seed: int,
    packages: Sequence[str] = (),
    results: Path = RESULTS,
    arguments: Sequence[str] | None = None,
    part: str = "",
) -> None:
    """Write `<question>.json` into the folder `results` and print the same object on one last line.

    `figures` are plain JSON values; `packages` are the distributions whose versions matter,
    `arguments` those after `hetlora bench <question>`, by default of this process. One of several parts of a
    question is written to `<question>-<part>.json`.
    """
    words = sys.argv[3:] if arguments is None else arguments
    result = {
        "question": question,
        "command": shlex.join(["hetlora", "bench", question, *map(_without_folders, words)]),
        "seed": seed,
        "started_at": beginning.started_at.isoformat(timespec="seconds"),
        "commit": commit_now(),
        "machine": machine(),
        "load_average_before": beginning.load_average,
        "versions": {name: importlib.metadata.version(name) for name in ("hetlora", *packages)},
        **figures,
    }
    results.mkdir(parents=True, exist_ok=True)
    name = f"{question}-{part}" if part else question
    (results / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _without_folders(word: str) -> str:
    """An argument as it may be published: an absolute path tells of somebody's machine."""
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if value.startswith("/") else word


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def commit_now() -> str | None:
    """The checkout's commit; None where this is none, as on a board that installed the package."""
    # Not that of another repository which an environment happens to lie in.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(FOLDER.parent.parent)}
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=FOLDER, env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
