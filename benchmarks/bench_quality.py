"""What does HetLoRA learn, beside one rank for all, full fine-tuning, and the other rules?"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks.harness import RESULTS, begin, finish
from benchmarks.options import Keep, Results, Seed, choices_of
from benchmarks.quality.arms import ARMS
from benchmarks.quality.report import draw, figures_of, markdown_of, rows_of
from benchmarks.quality.trial import PENALTY, SCORE_EVERY, Trial, run_arm
from benchmarks.rules.trials import run_trials
from benchmarks.tasks.opening import Name, open_task
from hetlora.cli.output import JsonFlag, stdout
from hetlora.errors import SettingsError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

PACKAGES: Final = ("onnxruntime-training-cpu", "numpy", "scipy", "torch")


@app.command()
def bench_quality(
    data: Annotated[Path, typer.Option(help="The folder of the task's data set.")],
    task: Annotated[Name, typer.Option(help="The learning problem.")] = "intents",
    arms: Annotated[str, typer.Option(help="Comma-separated; all by default.")] = ",".join(ARMS),
    seeds: Annotated[int, typer.Option(min=1, help="How many, each with its own clients and batches.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each run.")] = 30,
    clients: Annotated[int, typer.Option(min=2, help="Of the intents; others as their data has.")] = 20,
    cohort: Annotated[int, typer.Option(min=1, help="Clients of one round.")] = 5,
    least_rank: Annotated[int, typer.Option(min=1, help="Of a client; the paper's is 5.")] = 2,
    most_rank: Annotated[int, typer.Option(min=1, max=64, help="Of a client; the paper's is 50.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Local steps of a client in a round.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(min=0, max=10, help="AdamW's, of adapters.")] = 3e-3,
    full_learning_rate: Annotated[float, typer.Option(min=0, max=10, help="AdamW's, of all weights.")] = 1e-4,
    central_learning_rate: Annotated[
        float, typer.Option(min=0, max=10, help="AdamW's, of adapters where all data is in one place.")
    ] = 1e-3,
    score_every: Annotated[int, typer.Option(min=1, help="Rounds between two scores.")] = SCORE_EVERY,
    answers: Annotated[
        bool, typer.Option("--answers", help="Of summaries, RougeL of what is generated, too.")
    ] = False,
    pruning_penalty: Annotated[
        float, typer.Option(min=0, max=1000, help="Lambda of the arms that prune.")
    ] = PENALTY,
    lost_share: Annotated[
        float,
        typer.Option(
            min=0, max=0.9, help="Run every arm again with so many of a round's updates lost; 0: do not."
        ),
    ] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time, each on one thread.")] = 2,
    keep: Keep = None,
    results: Results = RESULTS,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Train the same clients in every way that is compared, for the same rounds.

    As in the paper clients take five steps of eight examples a round, and ranks follow a power law that is
    skewed to the small; models, ranks, clients and rounds are smaller. `docs/hetlora.md` tells what
    compares.

    Read: `rows`, by EdgeFlowerTune's protocols: the mean and deviation over the seeds of the last score;
    rounds, megabytes and seconds to the target, nine tenths of what one high rank for all gains; the score
    within a budget, half of what that takes; with --lost-share the score where updates are lost, and the
    share of the gain that is left. And `quality-<task>.md` and `.png`; with losses
    `quality-<task>-lost`, with another penalty `quality-<task>-penalty`.

    Example: `hetlora bench quality --data banking77/ --seeds 1 --rounds 4 --arms zero_pad,hetlora_gamma_0.99`
    """
    beginning = begin()
    names = choices_of(arms, "arms", [*ARMS])
    if least_rank > most_rank:
        raise SettingsError("--least-rank", got=least_rank, expected=f"up to --most-rank, {most_rank}")
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        trial = Trial(
            task,
            data,
            keep or Path(scratch),
            clients,
            cohort,
            (least_rank, most_rank),
            rounds,
            steps,
            batch_size,
            learning_rate,
            full_learning_rate,
            central_learning_rate,
            score_every,
            answers,
            pruning_penalty=pruning_penalty,
        )
        metric = open_task(task, data, trial.work, clients, seed).metric  # exports what all runs share
        every = [seed + number for number in range(seeds)]
        curves = run_trials(partial(run_arm, trial), names, every, processes)
        lossy = replace(trial, lost_share=lost_share)
        with_losses = run_trials(partial(run_arm, lossy), names, every, processes) if lost_share else {}
    # So that runs with losses, or another penalty, do not replace those without.
    part = f"{task}{'-lost' if lost_share else ''}{'-penalty' if pruning_penalty != PENALTY else ''}"
    table = markdown_of(rows_of(curves, with_losses), metric)
    (results / f"quality-{part}.md").write_text(table + "\n")
    draw(curves, metric, results / f"quality-{part}.png")
    if not as_json:
        stdout.print(table, markup=False)
    shape = {name: value for name, value in asdict(lossy).items() if name not in ("data", "work")}
    figures = {**shape, "metric": metric, **figures_of(curves, with_losses)}
    finish("quality", figures, beginning=beginning, seed=seed, packages=PACKAGES, results=results, part=part)
