"""Write benchmarks/README.md and the pictures that it shows."""

from __future__ import annotations

from benchmarks.harness import FOLDER, RESULTS
from benchmarks.report.answer import Bars
from benchmarks.report.page import answers_of, page_of, picture_name, results_in
from benchmarks.report.pictures import draw
from hetlora.cli.output import stderr


def main() -> None:
    """Answer every question that has a result."""
    results = results_in(RESULTS)
    answers = answers_of(results)
    for name, answer in answers.items():
        if answer is not None and isinstance(answer.picture, Bars):
            draw(answer.picture, RESULTS / picture_name(name, answer))
    (FOLDER / "README.md").write_text(page_of(results, answers), encoding="utf-8")
    stderr.print(
        f"{sum(answer is not None for answer in answers.values())} of {len(answers)} questions answered"
    )


if __name__ == "__main__":
    main()
