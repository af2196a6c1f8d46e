"""The Kotlin client on this machine's Java, for the tests; what is missing skips a test."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from e2e_fleet import TinyFleet

from benchmarks.clients.jvm import PUBLISHED, told_by
from benchmarks.fleet import POPULATION
from benchmarks.processes import Process

# HttpURLConnection of a desktop knows no PATCH: the tests' programs set the method by reflection.
_FLAGS: Final = ("--add-opens", "java.base/java.net=ALL-UNNAMED", "-XX:+UseSerialGC")


@cache
def class_path(module: str) -> str:
    """What `java -cp` takes for a module and its tests, compiled where that is to be done."""
    if shutil.which("java") is None:
        pytest.skip("the Kotlin client needs Java 17: apt-get install default-jdk")
    return told_by("build.py", module, "--class-path")[-1]


def command(program: str, *arguments: object) -> list[str]:
    """A program of the client's tests, by its class below `dev.hetlora`."""
    module = "trainer-ort" if program.startswith("ort.") else "sdk-core"
    java = ["java", *_FLAGS, f"-Donnxruntime.native.path={PUBLISHED}", "-cp", class_path(module)]
    return [*java, f"dev.hetlora.{program}", *map(str, arguments)]


def device(fleet: TinyFleet, program: str, folder: Path, *arguments: object) -> Process:
    """A device of the fleet that keeps its state in `folder`, not started yet; its log lies beside."""
    words = command(program, fleet.service.url, POPULATION, folder, *arguments)
    return Process(words, folder.with_suffix(".log"), {"HETLORA_ENROLMENT_TOKEN": fleet.enrolment_token})


def write_rows(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    """A file of texts and their labels, as the programs read it."""
    path.write_text("\n".join("\t".join(row) for row in rows))
    return path
