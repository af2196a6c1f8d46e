"""Attacks on cohorts of unequal ranks: a defended result stays near the honest one, any other does not.

A result's error is its distance from what the honest devices alone come to, in products, over how far they
move the global product: at 1 the round is worth no more than none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from cohorts import RANK, SPEC, distance, effective, merged
from defended import defended, stretched
from every_rule import opened, state_of

from aggregator_service.aggregation.rule import Rule, Update
from aggregator_service.aggregation.stacks import groups_of
from hetlora.messages.defence import Defence

HONEST_RANKS = (1, 2, 3, RANK) * 4
HOSTILE_RANKS = (1, 2, 3, RANK)  # a fifth of the cohort
SIZE = 0.3

Steps = list[tuple[np.ndarray, np.ndarray]]


def direction(seed: int, size: float = SIZE) -> Steps:
    """What both factors move at the run's rank, group by group."""
    rng = np.random.default_rng(seed)
    return [
        (
            size * rng.standard_normal((len(group), RANK, group.in_features)),
            size * rng.standard_normal((len(group), group.out_features, RANK)),
        )
        for group in groups_of(SPEC)
    ]


def moved(rule: Rule, rank: int, along: Steps, seed: int = 0, noise: float = 0.3 * SIZE) -> Update:
    """What a device of this rank sends that moved along a direction, with noise of its own."""
    rng = np.random.default_rng(seed)
    sent = rule.distribute(rank).received
    after = sent.with_values(sent.values.copy())
    for stack, (step_A, step_B) in zip(after, along, strict=True):
        stack.lora_A[:] += step_A[:, :rank] + noise * rng.standard_normal(stack.lora_A.shape)
        stack.lora_B[:] += step_B[:, :, :rank] + noise * rng.standard_normal(stack.lora_B.shape)
    return Update(after, 1, sent)


def honest(rule: Rule) -> list[Update]:
    """Sixteen devices that move one way, each with its noise."""
    return [moved(rule, rank, direction(5), seed) for seed, rank in enumerate(HONEST_RANKS)]


def hostile(rule: Rule, factor: float) -> list[Update]:
    """Four that do the same, times a factor."""
    return [
        stretched(moved(rule, rank, direction(5), 50 + seed), factor)
        for seed, rank in enumerate(HOSTILE_RANKS)
    ]


def colluding(rule: Rule, factor: float) -> list[Update]:
    """Four that send one common direction, a factor as long as the honest one, without any noise."""
    return [moved(rule, rank, direction(77, factor * SIZE), noise=0.0) for rank in HOSTILE_RANKS]


ATTACKS: dict[str, Callable[[Rule], list[Update]]] = {
    "sign_flip_times_10": lambda rule: hostile(rule, -10),
    "scaling_times_100": lambda rule: hostile(rule, 100),
    "collusion_of_a_fifth": lambda rule: colluding(rule, 10),
}
# The defence, and the error that it keeps to. Krum's is that of one update, which is narrow as often as not.
DEFENCES: dict[str, tuple[Defence, float]] = {
    "clip": (Defence(clip=True), 0.65),
    "krum": (Defence(method="krum"), 0.6),
    "multi_krum": (Defence(method="multi_krum"), 0.25),
    "geometric_median": (Defence(method="geometric_median", clip=True), 0.2),
    "fltrust": (Defence(method="fltrust", trusted_device="own"), 0.25),
    "trimmed_mean": (Defence(method="trimmed_mean"), 0.2),
    "median": (Defence(method="median"), 0.2),
}
MAIN_RULES = ("hetlora", "rbla", "flexlora", "residual_exact")
attacked = pytest.mark.parametrize("attack", ATTACKS)
ruled = pytest.mark.parametrize("name", MAIN_RULES)


def error(name: str, defence: Defence, bad: Sequence[Update]) -> float:
    rule = opened(name)
    good = honest(rule)
    fair = effective(merged(rule, good).state)
    trusted = HONEST_RANKS.index(RANK) if defence.method == "fltrust" else None
    _, result = defended(defence, rule, [*good, *bad], trusted)
    return distance(effective(result.state), fair) / distance(fair, effective(state_of(name)))


def bad_updates(name: str, attack: str) -> list[Update]:
    return ATTACKS[attack](opened(name))


@ruled
@attacked
def test_without_a_defence_the_round_is_worse_than_none(name: str, attack: str) -> None:
    assert error(name, Defence(), bad_updates(name, attack)) > 2


@ruled
@attacked
@pytest.mark.parametrize("defence", DEFENCES)
def test_with_a_defence_the_result_stays_near_the_honest_one(name: str, attack: str, defence: str) -> None:
    chosen, most = DEFENCES[defence]
    assert error(name, chosen, bad_updates(name, attack)) < most


@ruled
@pytest.mark.parametrize("defence", DEFENCES)
def test_cohort_without_an_attack_loses_no_more_to_a_defence(name: str, defence: str) -> None:
    # Multi-Krum leaves out more than the hostile share, and wide devices first.
    chosen, most = DEFENCES[defence]
    assert error(name, chosen, []) < (0.45 if defence == "multi_krum" else most)


STEALTHY = ("multi_krum", "geometric_median", "fltrust", "trimmed_mean", "median")


@pytest.mark.parametrize("name", ["rbla", "residual_exact"])
@pytest.mark.parametrize("factor", [-1.0, None])
@pytest.mark.parametrize("defence", STEALTHY)
def test_attack_as_long_as_honest_changes_is_held_by_screens(
    name: str, factor: float | None, defence: str
) -> None:
    # The plain sign flip, and collusion in a direction of honest length: no norm tells of it.
    rule = opened(name)
    bad = colluding(rule, 1) if factor is None else hostile(rule, factor)
    assert error(name, Defence(), bad) > 0.25
    assert error(name, DEFENCES[defence][0], bad) < 0.2


def test_clipping_alone_does_not_tell_a_sign() -> None:
    bad = hostile(opened("rbla"), -1)
    assert error("rbla", Defence(clip=True), bad) == pytest.approx(error("rbla", Defence(), bad), rel=0.05)


def test_weighting_alone_does_not_hold_a_rule_that_weighs_by_norms() -> None:
    bad = bad_updates("hetlora", "scaling_times_100")
    assert error("hetlora", Defence(method="geometric_median"), bad) > 2
    assert error("hetlora", Defence(method="geometric_median", clip=True), bad) < 0.2


TAIL_RULES = pytest.mark.parametrize("name", ["rbla", "replication", "raflora"])
# With Krum's own errors, of leaving honest updates out.
TAIL_DEFENCES = {
    "quorum": (Defence(quorum=3), 1e-5),
    "clip_and_quorum": (Defence(clip=True, quorum=3), 0.02),
    "trimmed_mean": (Defence(method="trimmed_mean"), 0.1),
    "median": (Defence(method="median"), 0.1),
    "multi_krum": (Defence(method="multi_krum"), 0.15),
    "krum": (Defence(method="krum"), 0.4),
}


@TAIL_RULES
def test_lone_wide_device_owns_the_tail_without_a_defence(name: str) -> None:
    assert tail_moved(name, Defence(), 20) > 2
    assert tail_moved(name, Defence(), 1) > 0.3


@TAIL_RULES
@pytest.mark.parametrize("defence", TAIL_DEFENCES)
def test_lone_wide_device_does_not_own_the_tail(name: str, defence: str) -> None:
    chosen, most = TAIL_DEFENCES[defence]
    assert tail_moved(name, chosen, 20) < most


@TAIL_RULES
@pytest.mark.parametrize("defence", ["quorum", "clip_and_quorum", "trimmed_mean", "median"])
def test_no_length_lets_a_lone_wide_device_own_the_tail(name: str, defence: str) -> None:
    chosen, most = TAIL_DEFENCES[defence]
    assert tail_moved(name, chosen, 1) < most


def tail_moved(name: str, defence: Defence, factor: float) -> float:
    """How far one device at the run's rank, among twelve at rank 2, moves the result, as in `error`.

    It moves the ranks that it alone holds, and no other, a factor as far as honest ones move theirs.
    """
    rule = opened(name)
    good = [moved(rule, 2, direction(5), seed) for seed in range(12)]
    wide = moved(rule, RANK, direction(8, factor * SIZE), noise=0.0)
    assert wide.received is not None
    for stack, before in zip(wide.adapter, wide.received, strict=True):
        stack.lora_A[:, :2], stack.lora_B[:, :, :2] = before.lora_A[:, :2], before.lora_B[:, :, :2]
    idle = replace(wide, adapter=wide.received)
    fair = effective(defended(Defence(), rule, [*good, idle])[1].state)
    result = effective(defended(defence, rule, [*good, wide])[1].state)
    return distance(result, fair) / distance(fair, effective(state_of(name)))
