"""What lies in an environment by package, and how long its imports take in fresh processes."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

BYTECODE: Final = "__pycache__"
_TIMED: Final = """
import json, sys, time
folder = sys.argv[1]
started, used = time.perf_counter(), time.process_time()
{statement}
print(json.dumps([time.perf_counter() - started, time.process_time() - used]))
"""


@dataclass(frozen=True, slots=True)
class Package:
    """One distribution; its bytes are without bytecode."""

    name: str
    version: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Installed:
    """One environment; packages by size, the largest first."""

    name: str
    bytes: int
    bytecode_bytes: int
    packages: Sequence[Package]


@dataclass(frozen=True, slots=True)
class Waited:
    """What a statement takes in a fresh process: medians, and the packages whose own modules take longest."""

    name: str
    seconds: float
    processor_seconds: float
    slowest: Mapping[str, float]


def installed_in(environment: Path, name: str) -> Installed:
    """Weigh the site-packages of a virtual environment."""
    [site] = environment.glob("lib/python*/site-packages")
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    bytecode = sum(size for path, size in sizes.items() if BYTECODE in path.parts)
    packages = [_weighed(one) for one in distributions(path=[str(site)])]
    packages.sort(key=lambda package: (-package.bytes, package.name))
    return Installed(name, sum(sizes.values()) - bytecode, bytecode, packages)


def _weighed(distribution: Distribution) -> Package:
    paths = [Path(str(file.locate())) for file in distribution.files or () if BYTECODE not in file.parts]
    size = sum(path.stat().st_size for path in paths if path.is_file())
    return Package(distribution.name, distribution.version, size)


def waited_for(python: Path, name: str, statement: str, starts: int) -> Waited:
    """Run a statement, in which `folder` is an empty folder, `starts` times after one that warms up."""
    runs = [_timed(python, statement) for _ in range(starts + 1)][1:]
    seconds, processor_seconds = (statistics.median(figures) for figures in zip(*runs, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        told = _run(python, "-X", "importtime", "-c", _TIMED.format(statement=statement), folder).stderr
    return Waited(name, seconds, processor_seconds, slowest_packages(told))


def slowest_packages(import_times: str, most: int = 5) -> dict[str, float]:
    """Seconds of a package's own modules, from what `-X importtime` told; the slowest first."""
    own: Counter[str] = Counter()
    for line in import_times.splitlines():
        head, _, name = line.rpartition("|")
        microseconds = head.partition("|")[0].rpartition(":")[2].strip()
        if microseconds.isdecimal():
            own[name.strip().partition(".")[0]] += int(microseconds)
    return {name: microseconds / 1e6 for name, microseconds in own.most_common(most)}


def _timed(python: Path, statement: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        seconds, used = json.loads(_run(python, "-c", _TIMED.format(statement=statement), folder).stdout)
    return seconds, used


def _run(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Alone with what the environment holds: neither this folder nor variables of Python's count."""
    return subprocess.run([str(python), "-I", *words], capture_output=True, text=True, check=True)
