"""The page itself: what each question came to, in what was run where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.harness import questions
from benchmarks.report import devices, learning, services
from benchmarks.report.answer import Answer, AnswerOf, Figures
from benchmarks.report.devices import boards_in
from benchmarks.result_file import ResultFile, read_result
from benchmarks.toy import WITHOUT_RESULT

ANSWERS: Final[Mapping[str, AnswerOf]] = {**learning.ANSWERS, **services.ANSWERS, **devices.ANSWERS}
# Where docs/benchmarks.md calls a question otherwise.
_SECTIONS: Final = {"precision": "precision-of-updates"}

_INTRODUCTION: Final = """# Benchmarks

Written by `make bench-report` out of `results/`; whoever changes this page by hand loses it. How each
question is measured, its tables and what they mean stand in [docs/benchmarks.md](../docs/benchmarks.md).

`hetlora bench` lists the questions, `hetlora bench round --help` tells the options of one, and `hetlora
bench round` answers it. Progress goes to standard error; standard output ends with one JSON object, alone
with `--json`, which is also written to `results/<question>.json`, or into the folder given by
`--results`. It holds the command, seed, commit, machine, the load average before the start, versions, and
the figures as rows with their units in the names. A peer runs in an environment of its own with the
versions of `constraints.txt`, installed on first use into `.cache/peers`, in turn with ours: ratios are
medians over pairs. `hetlora bench data` tells where the data sets are from. `make bench-tiny` runs every
question at toy size. A new script is `bench_<question>.py`; `harness.py` says what it must do.
"""
_NOT_MEASURED: Final = "Not measured yet: `hetlora bench {question}` does."


def results_in(folder: Path) -> dict[str, ResultFile]:
    """The result files of a folder by their names without the ending.

    Raises:
        DataError: one is no result.
    """
    return {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}


def answers_of(results: Mapping[str, ResultFile]) -> dict[str, Answer | None]:
    """By question, in the order of the page; None where there is no result yet."""
    asked = [name for name in questions() if name not in WITHOUT_RESULT]
    ordered = [*(name for name in ANSWERS if name in asked), *(name for name in asked if name not in ANSWERS)]
    return {
        name: ANSWERS[name](figures) if (figures := _figures(name, results)) else None for name in ordered
    }


def page_of(results: Mapping[str, ResultFile], answers: Mapping[str, Answer | None]) -> str:
    """The page as Markdown."""
    first_lines = questions()
    parts = [_INTRODUCTION]
    for name, answer in answers.items():
        section = _SECTIONS.get(name, name)
        heading = f"## {name.capitalize()}\n\n{first_lines[name]}\n"
        if answer is None:
            parts.append(f"{heading}\n{_NOT_MEASURED.format(question=name)}\n")
            continue
        files = ", ".join(
            f"[{stem}.json](results/{stem}.json)" for stem, own in results.items() if own.question == name
        )
        told = (
            f"{answer.paragraph} [How, and what it means](../docs/benchmarks.md#{section}).",
            f"![{first_lines[name]}](results/{picture_name(name, answer)})",
            *([answer.table] if answer.table else []),
            f"From {files}.\n",
        )
        parts.append("\n\n".join((heading.rstrip(), *told)))
    return "\n".join([*parts, _what_was_run_where(results)])


def picture_name(question: str, answer: Answer) -> str:
    """The file of an answer's picture."""
    return answer.picture if isinstance(answer.picture, str) else f"{question}.png"


def _figures(question: str, results: Mapping[str, ResultFile]) -> Figures:
    return {
        stem.removeprefix(question).removeprefix("-"): result.figures
        for stem, result in results.items()
        if result.question == question
    }


def _what_was_run_where(results: Mapping[str, ResultFile]) -> str:
    machines = list(dict.fromkeys(_machine(result) for result in results.values()))
    lines = [
        "## What was run where",
        "",
        "| file | command | day | commit | seed | load before | versions | machine |",
        f"|{'---|' * 8}",
    ]
    for stem, result in results.items():
        cells = (
            f"[{stem}](results/{stem}.json)",
            f"`{result.command}`",
            f"{result.started_at:%Y-%m-%d}",
            result.commit or f"version {result.versions['hetlora']}",
            str(result.seed),
            f"{result.load_average_before:g}",
            ", ".join(f"{name} {own}" for name, own in result.versions.items() if name != "hetlora"),
            str(machines.index(_machine(result)) + 1),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {machine}" for number, machine in enumerate(machines, 1)), ""]
    last = "A commit that ends with `-dirty` had changes that were committed later."
    boards = boards_in(_figures("device", results))
    return "\n".join([*lines, last if boards else f"{last} No board and no phone yet.", ""])


def _machine(result: ResultFile) -> str:
    own = result.machine
    system = own.system.partition("-")[0]
    gigabytes = own.memory_bytes / 1e9
    return f"{own.processor}, {own.cores} cores, {gigabytes:.0f} GB, {system}, Python {own.python}"
