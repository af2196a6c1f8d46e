"""Each client as a process of its own that takes the steps of a case: what it lost, and how long it took."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from sys import executable
from typing import Any, Final, Self

from benchmarks.clients.jvm import Jvm, answer_in
from benchmarks.clients.web import built_page, chromium, told_by_program
from benchmarks.harness import run_measured
from hetlora.errors import HetloraError, SettingsError

_PATIENCE_SECONDS: Final = 540.0


@dataclass(frozen=True, slots=True)
class Steps:
    """Losses of the steps of one process, and the seconds that each took."""

    losses: tuple[float, ...]
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """What a process told of them."""
        return cls(tuple(told["losses"]), tuple(told["seconds"]))


# With the folder of a case and how many threads. Errors say what is missing, or what failed.
Client = Callable[[Path, int], Steps]


def python(case: Path, threads: int, *, is_plain: bool) -> Steps:
    """In ONNX Runtime's training session, as the SDK trains, or over the graph of the other clients."""
    config = case / "python.json"
    config.write_text(json.dumps({"case": str(case), "threads": threads, "is_plain": is_plain}))
    script = Path(__file__).parent / "python_process.py"
    return Steps.of(run_measured([executable, script, config]).last_json())


def jvm(case: Path, threads: int) -> Steps:
    """The Kotlin client, on what is published of ONNX Runtime for desktop Java."""
    path = case / "jvm" / "case.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": threads}))
    Jvm.compiled().train(path.parent)
    return Steps.of(answer_in(path.parent))


def node(case: Path, threads: int) -> Steps:
    """The browser client's training in Node, which has one thread of it."""
    if threads != 1:
        raise SettingsError("threads of WebAssembly in Node", got=threads, expected="1")
    return Steps.of(told_by_program("steps", case, seconds=_PATIENCE_SECONDS))


def page(case: Path, threads: int) -> Steps:
    """The built page's worker in headless Chromium; several threads take an isolated page."""
    built_page()
    isolated = threads > 1
    asked = {
        "chromium": str(chromium()),
        "profile": str(case / "profile"),
        "case": str(case),
        "threads": threads,
        "isolated": isolated,
        "seconds": _PATIENCE_SECONDS,
    }
    config = case / "page.json"
    config.write_text(json.dumps(asked))
    told = told_by_program("pageSteps", config, seconds=_PATIENCE_SECONDS + 60)
    if told["isIsolated"] != isolated:
        raise HetloraError("the page's isolation", got=told["isIsolated"], expected=isolated)
    return Steps.of(told)


# In the order of the table; the first is what the others are compared with.
CLIENTS: Final[Mapping[str, Client]] = {
    "python": partial(python, is_plain=False),
    "python-plain": partial(python, is_plain=True),
    "jvm": jvm,
    "node": node,
    "chromium": page,
}
