"""`hetlora run create`: every setting of a run, frozen with it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import typer

from hetlora.cli.completion import complete_populations
from hetlora.cli.condition_options import ConditionsOption, conditions_of
from hetlora.cli.evaluation_options import evaluation_of
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag
from hetlora.cli.privacy_options import PrivacyOption, privacy_of
from hetlora.cli.published_bundle import published
from hetlora.cli.rule_options import (
    DefenceOption,
    OptimizerOption,
    RuleOption,
    defence_of,
    rule_of,
    screens_of,
    server_optimizer_of,
)
from hetlora.cli.run_told import show
from hetlora.cli.step_options import StepOptionsOption, step_options_of
from hetlora.cli.trust import CaFileOption
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.messages.masking import SecureAggregation

# For the defaults of what it does not name.
RUN: Final = RunSettings(goal_count=1, max_rank=1)


def create(
    population: Annotated[
        str, typer.Option(help="Whose devices take part.", autocompletion=complete_populations)
    ],
    bundle: Annotated[
        str, typer.Option(help="A published digest, or a bundle folder (published if need be).")
    ],
    goal_count: Annotated[int, typer.Option(min=1, help="Accepted updates that commit a round.")],
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="Another bundle of the same adapter, in int8 say, for devices that it gives a higher rank; "
            "again for each, the one that you like best first."
        ),
    ] = None,
    mode: Annotated[
        Literal["synchronous", "buffered"],
        typer.Option(
            help="What becomes of devices at work when the goal is met: they are told to stop, or they go "
            "on, and count in a later round, less the older their adapter is."
        ),
    ] = RUN.mode,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds to commit.")] = RUN.rounds,
    over_selection: Annotated[
        float,
        typer.Option(help="Devices asked, or at work with buffered, as a multiple of the goal."),
    ] = RUN.over_selection,
    minimum_share: Annotated[
        float, typer.Option(help="Share of the goal that suffices at the window's end.")
    ] = RUN.minimum_share,
    report_window_seconds: Annotated[
        float, typer.Option(help="How long a round collects at most.")
    ] = RUN.report_window_seconds,
    lease_seconds: Annotated[
        float, typer.Option(help="How long a device may hold an assignment.")
    ] = RUN.lease_seconds,
    max_staleness: Annotated[
        int,
        typer.Option(
            min=1,
            help="With buffered: rounds that may close while a device works, before its update is refused.",
        ),
    ] = RUN.max_staleness,
    min_rank: Annotated[int, typer.Option(min=1, help="No device trains below this rank.")] = RUN.min_rank,
    max_rank: Annotated[int | None, typer.Option(min=1, help="Global rank; by default the bundle's.")] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Optimizer steps of a device in one round.")
    ] = RUN.training.steps,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in one step.")] = RUN.training.batch_size,
    learning_rate: Annotated[
        float, typer.Option(help="The learning rate of devices.")
    ] = RUN.training.learning_rate,
    step_option: StepOptionsOption = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an example; by default the bundle's.")
    ] = None,
    min_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Devices that lack the memory may cut examples to so many; by default none may."
        ),
    ] = None,
    pruning_decay: Annotated[
        float | None,
        typer.Option(
            help="HetLoRA's gamma; 1 switches self-pruning off. "
            f"[{RUN.training.pruning_decay} with hetlora, 1 with other rules]"
        ),
    ] = None,
    pruning_penalty: Annotated[
        float | None,
        typer.Option(help=f"HetLoRA's lambda. [{RUN.training.pruning_penalty} with hetlora, 0 with others]"),
    ] = None,
    prune_by: Annotated[
        Literal["model", "module"],
        typer.Option(help="One decision to prune for all modules, or one for each."),
    ] = RUN.training.prune_by,
    upload_precision: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(
            help="How devices tell what training changed: float16 is half the bytes, int8 a quarter."
        ),
    ] = RUN.training.upload_precision,
    score_rounds: Annotated[
        bool,
        typer.Option(
            "--score-rounds",
            help="Devices tell their loss on what they hold out, before and after each round's training.",
        ),
    ] = RUN.training.evaluate,
    rule: RuleOption = RUN.rule.name,
    rule_option: Annotated[
        list[str] | None,
        typer.Option(help="A constant of the rule as key=value, such as quorum=3 for rbla; again for each."),
    ] = None,
    server_optimizer: OptimizerOption = None,
    optimizer_option: Annotated[
        list[str] | None,
        typer.Option(help="A constant of it as key=value, such as learning_rate=0.1; again for each."),
    ] = None,
    defence: DefenceOption = RUN.defence.method,
    clip: Annotated[
        bool, typer.Option("--clip", help="Cut changes to a multiple of the round's median norm.")
    ] = False,
    defence_option: Annotated[
        list[str] | None,
        typer.Option(
            help="A constant of the defence as key=value, again for each: hostile_share (krum, multi_krum, "
            "trimmed_mean), trusted_device (fltrust), max_updates (all but none and fltrust), clip_factor "
            "(with --clip, and fltrust), quorum (any)."
        ),
    ] = None,
    privacy_option: PrivacyOption = None,
    screens: Annotated[
        bool,
        typer.Option(
            "--screens",
            help="Take updates out of a round that stand apart from all others by length, direction or loss; "
            "`hetlora quarantine` has them.",
        ),
    ] = False,
    screen_option: Annotated[
        list[str] | None,
        typer.Option(
            help="A constant of the screens as key=value, again for each: norm, direction, loss (deviations "
            "from the median, or null for none), spared_cosine, minimum_cohort, max_updates."
        ),
    ] = None,
    secure_aggregation: Annotated[
        bool,
        typer.Option(
            "--secure-aggregation",
            help="Have devices mask what they send: the service sees sums (docs/secure_aggregation.md).",
        ),
    ] = False,
    evaluate_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Evaluate the adapter of every so many rounds, and the last, on what devices hold out.",
        ),
    ] = None,
    evaluation_devices: Annotated[
        int | None, typer.Option(min=2, help="Reports that end an evaluation; by default the goal count.")
    ] = None,
    evaluation_window_seconds: Annotated[
        float, typer.Option(min=1, help="How long an evaluation takes reports at most.")
    ] = 3600,
    condition: ConditionsOption = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the initial adapter and of all batches.")
    ] = RUN.seed,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a run in state draft; `hetlora run start` sets it going.

    `hetlora run rules` tells the constants of rules, server optimizers and defences.

    Example: `hetlora run create --population phones --bundle bundle/ --goal-count 20 --rule rbla
    --rule-option quorum=3 --server-optimizer momentum --defence multi_krum --clip`
    """
    chosen: dict[str, Any] = {
        "rule": rule_of(rule, rule_option or []),
        "server_optimizer": server_optimizer_of(server_optimizer, optimizer_option or []),
        "defence": defence_of(defence, clip, defence_option or []),
        "screens": screens_of(screens, screen_option or []),
        "secure_aggregation": SecureAggregation() if secure_aggregation else None,
    }
    evaluation = evaluation_of(
        evaluate_every, evaluation_devices, evaluation_window_seconds, goal_count=goal_count
    )
    # What is not given is left to the rule's defaults.
    pruning = {"pruning_decay": pruning_decay, "pruning_penalty": pruning_penalty}
    asked: dict[str, Any] = {name: value for name, value in pruning.items() if value is not None}
    asked |= step_options_of(step_option or []).model_dump()
    with connect(url, token, ca_file) as operator:
        digest, manifest = published(operator, bundle, as_json=as_json)
        variants = tuple(published(operator, given, as_json=as_json)[0] for given in variant or [])
        settings = RunSettings(
            mode=mode,
            rounds=rounds,
            goal_count=goal_count,
            over_selection=over_selection,
            minimum_share=minimum_share,
            report_window_seconds=report_window_seconds,
            lease_seconds=lease_seconds,
            max_staleness=max_staleness,
            evaluation=evaluation,
            conditions=conditions_of(condition or []),
            min_rank=min_rank,
            max_rank=max_rank or manifest.adapter.max_rank,
            seed=seed,
            training=TrainingSettings(
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                max_tokens=max_tokens or manifest.max_tokens,
                min_tokens=min_tokens,
                prune_by=prune_by,
                upload_precision=upload_precision,
                evaluate=score_rounds,
                **asked,
            ),
            variants=variants,
            privacy=privacy_of(privacy_option or []),
            **chosen,
        )
        run = operator.create_run(RunCreate(population=population, bundle=digest, settings=settings))
    show(run, as_json)
