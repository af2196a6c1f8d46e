"""benchmarks/README.md: what the result files say, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.harness import FOLDER, RESULTS, questions
from benchmarks.report.answer import Answer, Bars, percent, span
from benchmarks.report.devices import step
from benchmarks.report.page import ANSWERS, answers_of, page_of, picture_name, results_in
from benchmarks.report.pictures import draw
from benchmarks.report.quality import quality
from benchmarks.report.services import chaos
from benchmarks.toy import WITHOUT_RESULT


def test_page_is_what_the_stored_results_say() -> None:
    """Else: make bench-report."""
    results = results_in(RESULTS)

    assert page_of(results, answers_of(results)) == (FOLDER / "README.md").read_text(encoding="utf-8")


def test_every_picture_of_the_page_is_there() -> None:
    for name, answer in answers_of(results_in(RESULTS)).items():
        assert answer is None or (RESULTS / picture_name(name, answer)).is_file(), name


def test_every_question_that_measures_has_an_answer() -> None:
    assert ANSWERS.keys() == questions().keys() - WITHOUT_RESULT


def test_question_without_a_result_says_which_command_does() -> None:
    page = page_of({}, answers_of({}))

    assert "Not measured yet: `hetlora bench step` does." in page


def test_step_is_told_by_the_span_of_each_precision() -> None:
    rows = [
        {"base": base, "shape": "1x8", "threads": 1, "time_ratio": time, "memory_ratio": memory}
        for base, time, memory in (("float32", 1.25, 0.8), ("float32", 1.5, 0.9), ("int8", 1.1, 0.5))
    ]

    answer = step({"": {"rows": rows}})

    assert (
        "1.25 to 1.50 times as fast in 0.80 to 0.90 of the memory with a base in float32" in answer.paragraph
    )
    assert "1.10 times as fast in 0.50 of the memory with a base in int8" in answer.paragraph
    assert isinstance(answer.picture, Bars)
    assert list(answer.picture.values) == [1.25, 1.5, 1.1]


def test_faults_of_all_storages_count_together() -> None:
    one = {
        "faults": 1000,
        "violations": 0,
        "updates_accepted": 7,
        "faults_by_kind": {"kill": 10, "cut_after": 2},
    }
    other = {**one, "violations": 1, "faults_by_kind": {"kill": 5}}

    answer = chaos({"sqlite": one, "postgresql": other})

    assert answer.paragraph.startswith(
        "2,000 faults (15 kills among them) over 2 kinds of storage, with 14 updates"
    )
    assert "broke 1 of the invariants" in answer.paragraph


def _arm(name: str, score: float, **others: float | None) -> dict[str, object]:
    return {"arm": name, "score": score, "deviation": 0.01, "untrained": 0.5, "scores": [score] * 3, **others}


def test_arms_are_told_by_their_share_of_the_highest_rank_s_gain_on_each_task() -> None:
    """Of a gain of 0.2 and of 0.1, 0.1 and 0.025 are 50 and 25 %."""
    accuracy = {"metric": "accuracy", "rounds": 20}
    intents = {**accuracy, "rows": [_arm("lora_most_rank", 0.7), _arm("hetlora_gamma_0.99", 0.6)]}
    domains = {
        **accuracy,
        "rows": [_arm("lora_most_rank", 0.6), _arm("hetlora_gamma_0.99", 0.525), _arm("flasc", 0.4)],
    }

    answer = quality({"intents": intents, "domains": domains})

    assert (
        "on 2 of 7 tasks, in the mean of at least 3 seeds: HetLoRA with gamma 0.99 25 to 50 %."
        in answer.paragraph
    )
    assert "full fine-tuning" not in answer.paragraph, "it was not run"
    assert isinstance(answer.picture, Bars)
    assert dict(zip(answer.picture.labels, answer.picture.values, strict=True)) == pytest.approx(
        {"lora most rank": 100.0, "hetlora gamma 0.99": 37.5}
    ), "FLASC was not run on both"
    assert answer.table.splitlines()[2:] == [
        "| untrained | 0.500 | 0.500 |",
        "| lora_most_rank | 0.700 ± 0.010 | 0.600 ± 0.010 |",
        "| hetlora_gamma_0.99 | 0.600 ± 0.010 | 0.525 ± 0.010 |",
        "| flasc |  | 0.400 ± 0.010 |",
    ]


def test_task_that_the_highest_rank_learns_nothing_of_is_told_by_itself() -> None:
    """There is no gain to take shares of."""
    accuracy = {"metric": "accuracy", "rounds": 20}
    intents = {**accuracy, "rows": [_arm("lora_most_rank", 0.7), _arm("hetlora_gamma_0.99", 0.6)]}
    domains = {**accuracy, "rows": [_arm("hetlora_gamma_0.99", 0.6), _arm("lora_most_rank", 0.4)]}

    answer = quality({"intents": intents, "domains": domains})

    assert "on 1 of 7 tasks" in answer.paragraph
    assert (
        "On domains it comes to 0.400 ± 0.010, worse than untrained (0.500): "
        "HetLoRA with gamma 0.99 0.600 ± 0.010." in answer.paragraph
    )
    assert isinstance(answer.picture, Bars)
    assert answer.picture.values == pytest.approx([100.0, 50.0])


def test_lost_updates_are_told_by_the_gain_that_is_kept() -> None:
    rows = [_arm("lora_most_rank", 0.7, gain_kept=0.1), _arm("hetlora_gamma_0.99", 0.6, gain_kept=0.875)]
    lost = {"metric": "accuracy", "rounds": 20, "lost_share": 0.4, "rows": rows}

    answer = quality({"intents": {**lost, "lost_share": 0.0}, "intents-lost": lost})

    assert "With 40 % of the updates lost on intents they keep 88 % of their gain." in answer.paragraph


def test_pruning_at_another_penalty_is_told_by_its_score_and_bytes() -> None:
    plain = {"metric": "accuracy", "rounds": 20, "rows": [_arm("lora_most_rank", 0.7)]}
    rows = [_arm("hetlora_gamma_0.85", 0.6, megabytes=93.4), _arm("zero_pad", 0.6, megabytes=108.0)]

    answer = quality({"intents": plain, "intents-penalty": {"pruning_penalty": 0.3, "rows": rows}})

    assert (
        "With a pruning penalty of 0.3 on intents: hetlora gamma 0.85 0.600 ± 0.010 with 93 MB."
        in answer.paragraph
    )


def test_missing_figure_is_an_error_and_no_gap() -> None:
    results = results_in(RESULTS)
    broken = results["step"].model_copy()
    object.__setattr__(broken, "__pydantic_extra__", {"rows": [{}]})

    with pytest.raises(KeyError):
        answers_of({**results, "step": broken})


def test_bars_are_drawn(tmp_path: Path) -> None:
    draw(Bars(["a", "b"], [1.0, -2.0], "seconds", 0.0), tmp_path / "own.png")

    assert (tmp_path / "own.png").read_bytes().startswith(b"\x89PNG")
    own = Answer("words", Bars([], [], ""))
    assert (picture_name("step", own), picture_name("step", replace(own, picture="x.png"))) == (
        "step.png",
        "x.png",
    )


def test_numbers_in_words() -> None:
    assert (percent(0.125), percent(0.125, 1)) == ("12 %", "12.5 %")
    assert (span([2.0, 1.0]), span([1.001, 1.002])) == ("1.00 to 2.00", "1.00")


def test_board_that_sent_its_figures_is_told_of() -> None:
    results = results_in(RESULTS)
    board = results["device"].model_copy(update={"commit": None, "board": "pi-5"})
    with_board = {**results, "device-pi-5": board}

    page = page_of(with_board, answers_of(with_board))

    steps = [row["seconds"] for row in board.figures["rows"]]
    assert f"On pi-5 a step takes {min(steps):.2f} to {max(steps):.2f} s." in page
    assert f"| version {board.versions['hetlora']} |" in page
    assert "No board and no phone yet" not in page
    assert "No board and no phone yet" in page_of(results, answers_of(results))
