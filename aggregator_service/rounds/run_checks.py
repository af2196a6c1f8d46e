"""Refuses settings of a run with which no round could commit, or none could move the adapter."""

from __future__ import annotations

from typing import Any

from aggregator_service.aggregation.robust.defence import least_owners, most_kept
from aggregator_service.aggregation.robust.krum import hostile_among
from aggregator_service.aggregation.rule import Rule
from aggregator_service.aggregation.rules import RULES
from aggregator_service.rounds.masking import weighing_of
from aggregator_service.rounds.rounds import minimum_reports, most_updates
from hetlora.errors import SettingsError
from hetlora.messages.defence import BY_COORDINATE, COMPARING, SCREENING, Defence
from hetlora.messages.device import Adaptation
from hetlora.messages.management import RunSettings
from hetlora.messages.masking import LEAST_MASKED, MOST_MASKED
from hetlora.messages.rules import RaFloraRule, RblaRule, ResidualExactRule
from hetlora.sent_parts import sends_whole_ranks


def check_settings(settings: RunSettings, rule: Rule[Any]) -> None:
    """Raise unless rounds of these settings can commit and move; `rule` is the first of them.

    Raises:
        SettingsError: they cannot, or an option would do nothing.
    """
    if settings.min_rank < rule.smallest_rank:
        raise SettingsError(
            f"min_rank of a run of {settings.rule.name}",
            got=settings.min_rank,
            expected=f"{rule.smallest_rank} or more",
        )
    adaptation = rule.distribute(settings.max_rank).adaptation
    _check_mode(settings)
    _check_constants(settings)
    _check_pruning(settings, adaptation)
    _check_method(settings, adaptation)
    _check_cores(settings, adaptation)
    _check_precision(settings, adaptation)
    _check_screens(settings, adaptation)
    _check_masking(settings)
    _check_majority(settings)
    _check_owners(settings)


def _check_mode(settings: RunSettings) -> None:
    """Means of what came, from devices that were sent older versions, would undo what others did since."""
    if settings.mode == "buffered" and not RULES[type(settings.rule)].adds_changes:
        fitting = sorted(kind.model_fields["name"].default for kind, own in RULES.items() if own.adds_changes)
        raise SettingsError(
            "the rule of a buffered run must add what devices changed, of whichever version",
            got=settings.rule.name,
            expected=f"{', '.join(fitting)}; or the mode synchronous",
        )


def _check_constants(settings: RunSettings) -> None:
    rule, run_rank = settings.rule, settings.max_rank
    if isinstance(rule, RaFloraRule) and any(level > run_rank for level in rule.levels):
        raise SettingsError("levels above the rank of the run", got=rule.levels, expected=f"up to {run_rank}")
    if isinstance(rule, ResidualExactRule) and rule.state_rank is not None and rule.state_rank < run_rank:
        raise SettingsError(
            "state_rank below the rank of the run", got=rule.state_rank, expected=f"{run_rank} or more"
        )


def _check_pruning(settings: RunSettings, adaptation: Adaptation) -> None:
    if settings.training.pruning_decay < 1 and not sends_whole_ranks(adaptation):
        raise SettingsError(
            f"self-pruning in a run of {settings.rule.name}, whose devices do not send whole ranks",
            got=f"pruning_decay {settings.training.pruning_decay}",
            expected="1, which prunes nothing",
        )


def _check_method(settings: RunSettings, adaptation: Adaptation) -> None:
    defence = settings.defence
    most = most_updates(settings)
    if defence.method in COMPARING and most > defence.max_updates:
        raise SettingsError(
            f"updates that a round of a run with the defence {defence.method} may have",
            got=most,
            expected=f"up to max_updates, {defence.max_updates}",
        )
    # What these look at are products B A, and without lora_B there are none.
    if adaptation.private_lora_B and defence.method in (*SCREENING, "fltrust"):
        raise SettingsError(
            f"the defence cannot tell updates of {settings.rule.name} apart, as lora_B stays on the devices",
            got=defence.method,
            expected="clip, trimmed_mean or median",
        )


def _check_cores(settings: RunSettings, adaptation: Adaptation) -> None:
    """An entry of a core belongs to those who hold both its row and its column, which no defence looks at."""
    defence = settings.defence
    by_owners = defence.quorum > 1 or defence.method in BY_COORDINATE
    if adaptation.trained == "core" and by_owners and settings.min_rank < settings.max_rank:
        raise SettingsError(
            f"the defence counts owners of ranks, and {settings.rule.name} has owners of entries",
            got=f"ranks {settings.min_rank} to {settings.max_rank}",
            expected="one rank for all devices, or no quorum, trimmed_mean or median",
        )


def _check_precision(settings: RunSettings, adaptation: Adaptation) -> None:
    """Cores are the few numbers that the others were given up for: there is nothing to gain."""
    precision = settings.training.upload_precision
    if adaptation.trained == "core" and precision != "float32":
        raise SettingsError(
            f"upload_precision of a run of {settings.rule.name}, whose cores are sent as they are",
            got=precision,
            expected="float32",
        )


def _check_screens(settings: RunSettings, adaptation: Adaptation) -> None:
    screens, most = settings.screens, most_updates(settings)
    if screens is None:
        return
    if most < screens.minimum_cohort:
        raise SettingsError(
            "screens would never say anything: rounds of the run are too small",
            got=f"up to {most} updates",
            expected=f"minimum_cohort, {screens.minimum_cohort}, or more",
        )
    if screens.direction is None:
        return
    if most > screens.max_updates:
        raise SettingsError(
            "updates that a round of a run with the screen direction may have",
            got=most,
            expected=f"up to max_updates of screens, {screens.max_updates}",
        )
    if adaptation.private_lora_B:
        raise SettingsError(
            f"updates of {settings.rule.name} have no direction to compare, as lora_B stays on the devices",
            got=f"direction {screens.direction:g}",
            expected="direction null",
        )


def _check_masking(settings: RunSettings) -> None:
    """Only a weighted sum of whole factors can be had of masked updates, and nothing can look at one."""
    if settings.secure_aggregation is None:
        return
    looking = "none: a masked update cannot be looked at"
    for fits, what, got, expected in (
        (
            weighing_of(settings.rule) is not None,
            "the rule of a run with secure aggregation",
            settings.rule,
            "hetlora with weights model, or zero_pad",
        ),
        (
            settings.mode == "synchronous",
            "the mode of a run with secure aggregation",
            settings.mode,
            "synchronous",
        ),
        (
            settings.defence == Defence(),
            "a defence in a run with secure aggregation",
            settings.defence.method,
            looking,
        ),
        (settings.screens is None, "screens in a run with secure aggregation", "screens", looking),
        (
            settings.training.upload_precision == "float32",
            "upload_precision of a run with secure aggregation",
            settings.training.upload_precision,
            "float32",
        ),
        (
            LEAST_MASKED <= settings.goal_count <= MOST_MASKED,
            "goal_count of a run with secure aggregation",
            settings.goal_count,
            f"{LEAST_MASKED} to {MOST_MASKED}",
        ),
    ):
        if not fits:
            raise SettingsError(what, got=got, expected=expected)


def _check_majority(settings: RunSettings) -> None:
    """Krum's n > 2 f + 2, for every size that a round may have when it is aggregated."""
    defence = settings.defence
    if defence.method not in ("krum", "multi_krum"):
        return
    for count in range(minimum_reports(settings), most_updates(settings) + 1):
        hostile = hostile_among(count, defence.hostile_share)
        if count <= 2 * hostile + 2:
            raise SettingsError(
                f"a round of {count} updates is too small for {defence.method} with {hostile} hostile ones",
                got=f"goal_count {settings.goal_count}, minimum_share {settings.minimum_share:g}, "
                f"hostile_share {defence.hostile_share:g}",
                expected="more than 2 f + 2: a larger goal or minimum_share, or a smaller hostile_share",
            )


def _check_owners(settings: RunSettings) -> None:
    defence, rule, goal = settings.defence, settings.rule, settings.goal_count
    needed = max(least_owners(defence), rule.quorum if isinstance(rule, RblaRule) else 1)
    kept = most_kept(defence, goal)
    if kept < needed:
        raise SettingsError(
            "no rank could ever move: too few updates of a round are left to own one",
            got=f"{kept} of goal_count {goal}",
            expected=f"{needed} or more",
        )
