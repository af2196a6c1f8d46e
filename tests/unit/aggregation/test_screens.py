"""Screens: attackers are found, and honest devices of unequal ranks and data are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from cohorts import RANK, distance, effective, merged, seeds
from defended import defended, plus, stored, stretched, turned
from every_rule import opened, state_of
from hypothesis import given
from hypothesis import strategies as st
from test_attacks import SIZE, colluding, direction, honest, hostile, moved

from aggregator_service.aggregation.rule import Rule, Update
from aggregator_service.aggregation.screens import Candidate, Finding, LossName, screened
from aggregator_service.aggregation.stacks import stacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.messages.defence import Defence
from hetlora.messages.screens import Screens

Losses = Mapping[LossName, float]
ALL = Screens()


def findings(
    updates: Sequence[Update], settings: Screens = ALL, losses: Sequence[Losses] = ()
) -> list[Finding | None]:
    refs, load = stored(updates)
    told = losses or [{}] * len(refs)
    return screened(settings, [*map(Candidate, refs, told)], load)


def screens_of(found: Sequence[Finding | None]) -> list[str | None]:
    return [own and own.screen for own in found]


def unequal(rule: Rule, seed: int, count: int, own: float) -> list[Update]:
    """Honest devices of unequal ranks and steps; each learns `own` times as much of its own as all share."""
    rng = np.random.default_rng(seed)
    shared = direction(seed)
    updates = []
    for _ in range(count):
        size = float(np.exp(rng.normal(0, 0.4)))
        mine = direction(int(rng.integers(2**30)), own * SIZE)
        along = [
            (size * (s_A + m_A), size * (s_B + m_B))
            for (s_A, s_B), (m_A, m_B) in zip(shared, mine, strict=True)
        ]
        rank = int(rng.integers(1, RANK + 1))
        updates.append(moved(rule, rank, along, int(rng.integers(2**30))))
    return updates


def noisy(rule: Rule) -> list[Update]:
    """Four that send noise of an honest length."""
    return [moved(rule, rank, direction(900 + rank), noise=0.0) for rank in (1, 2, 3, RANK)]


def with_flipped_labels(rule: Rule) -> list[Update]:
    """Four that learn half of what all learn, which the labels do not tell, and the opposite of the rest."""
    text, labels = direction(5, 0.5 * SIZE), direction(6)
    along = [(t - own, u - other) for (t, u), (own, other) in zip(text, labels, strict=True)]
    return [moved(rule, rank, along, 70 + rank) for rank in (1, 2, 3, RANK)]


ATTACKS = {
    "scaled times 100": (lambda rule: hostile(rule, 100), "norm"),
    "flipped times 10": (lambda rule: hostile(rule, -10), "norm"),
    "flipped": (lambda rule: hostile(rule, -1), "direction"),
    "a fifth that colludes": (lambda rule: colluding(rule, 1), "direction"),
    "noise of an honest length": (noisy, "direction"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["hetlora", "rbla", "flexlora"])
def test_attackers_are_found_and_nobody_else(name: str, attack: str) -> None:
    rule = opened(name)
    make, screen = ATTACKS[attack]
    found = screens_of(findings([*honest(rule), *make(rule)]))
    assert found == [None] * 16 + [screen] * 4


def test_flipped_labels_are_found_by_their_direction() -> None:
    rule = opened("hetlora")
    both = [(s + t, u + v) for (s, u), (t, v) in zip(direction(5, 0.5 * SIZE), direction(6), strict=True)]
    good = [moved(rule, rank, both, seed) for seed, rank in enumerate((1, 2, 3, RANK) * 4)]
    found = screens_of(findings([*good, *with_flipped_labels(rule)]))
    assert found == [None] * 16 + ["direction"] * 4


@pytest.mark.parametrize("own", [0.3, 1.0, 2.0, 4.0])
def test_few_honest_updates_of_unequal_devices_are_taken_out(own: float) -> None:
    """Of 465 with each kind of data, at most 3; cohorts of 5 to 50, widths 1 to 4, steps of e^(+-0.4)."""
    rule = opened("hetlora")
    found = [
        finding
        for seed in range(5)
        for count in (5, 8, 30, 50)
        for finding in findings(unequal(rule, 1000 * seed + count, count, own))
    ]
    assert len(found) == 465
    assert sum(finding is not None for finding in found) <= 3


WIDE = AdapterSpec((ModuleSpec("a", 64, 48), ModuleSpec("b", 48, 64)), scaling=1.0, max_rank=32)


def wide_cohort(seed: int, count: int, own: float, lora_B: float) -> list[Update]:
    """The same of ranks 2 to 32, each sent the leading ranks of one adapter whose lora_B is of this size."""
    rng = np.random.default_rng(seed)

    def normal(size: float) -> dict[str, LoraFactors]:
        return {
            module.name: LoraFactors(
                rng.standard_normal((32, module.in_features)),
                size * rng.standard_normal((module.out_features, 32)),
            )
            for module in WIDE.modules
        }

    start, shared = normal(lora_B), normal(1.0)
    updates = []
    for rank in rng.choice([2, 4, 8, 16, 32], count):
        size, mine = 0.4 * float(np.exp(rng.normal(0, 0.5))), normal(1.0)
        ends = []
        for step in (0.0, size):
            factors = {
                name: LoraFactors(
                    (begun.lora_A + step * (shared[name].lora_A + own * mine[name].lora_A))[:rank],
                    (begun.lora_B + step * (shared[name].lora_B + own * mine[name].lora_B))[:, :rank],
                )
                for name, begun in start.items()
            }
            ends.append(stacked(Adapter(WIDE, factors)))
        updates.append(Update(ends[1], 1, ends[0]))
    return updates


@pytest.mark.parametrize("lora_B", [0.0, 0.3])  # in a run's first round, and later
@pytest.mark.parametrize("own", [0.3, 2.0, 8.0])
def test_few_honest_updates_of_very_unequal_ranks_are_taken_out(own: float, lora_B: float) -> None:
    found = [
        finding
        for seed in range(6)
        for count in (5, 10, 30)
        for finding in findings(wide_cohort(100 * seed + count, count, own, lora_B))
    ]
    assert len(found) == 270
    assert sum(finding is not None for finding in found) <= 2


def test_lone_wide_device_is_not_taken_out() -> None:
    # sqrt(32 / 2) = 4 times as long, and with its own noise in each of its ranks.
    spec = AdapterSpec((ModuleSpec("only", 40, 40),), scaling=1.0, max_rank=32)

    def update(rank: int, seed: int) -> Update:
        rng = np.random.default_rng(seed)
        lora_A, lora_B = rng.standard_normal((rank, 40)), rng.standard_normal((40, rank))
        sent = Adapter(spec, {"only": LoraFactors(lora_A, np.zeros((40, rank)))})
        came = Adapter(spec, {"only": LoraFactors(lora_A, lora_B)})
        return Update(stacked(came), 1, stacked(sent))

    cohort = [*(update(2, seed) for seed in range(9)), update(32, 9)]
    norms = Screens(direction=None, loss=None)
    assert findings(cohort, norms) == [None] * 10


def test_limit_of_a_norm_can_be_reckoned_by_hand() -> None:
    # Rank 1, A = 1, B = n on a 1 x 1 module: ||B A|| = n. Logarithms of 1, 1, 1, 2, 2 and 40: the median is
    # log(2) / 2, absolute deviations are log(2) / 2 five times and more once, their median log(2) / 2.
    spec = AdapterSpec((ModuleSpec("only", 1, 1),), scaling=1.0, max_rank=1)

    def update(norm: float) -> Update:
        ends = (LoraFactors(np.ones((1, 1)), np.full((1, 1), lora_B)) for lora_B in (0.0, norm))
        sent, came = (stacked(Adapter(spec, {"only": own})) for own in ends)
        return Update(came, 1, sent)

    *passed, last = findings([update(n) for n in (1, 1, 1, 2, 2, 40)], Screens(direction=None, loss=None))
    assert passed == [None] * 5
    assert last is not None
    assert last.value == 40
    assert last.median == pytest.approx(2**0.5)
    assert last.limit == pytest.approx(np.exp((0.5 + 6 * 1.4826 * 0.5) * np.log(2)))
    assert last.in_words() == "norm 40, the cohort's median 1.414, at most 30.86"


def test_large_factors_of_a_small_product_are_found() -> None:
    rule = opened("rbla")
    cohort = honest(rule)
    cohort[3] = turned(cohort[3], seed=1, spread=3.0)
    (found,) = [own for own in findings(cohort) if own is not None]
    assert (found.screen, found.measure) == ("norm", "movement")


def test_update_that_changed_nothing_is_not_taken_out() -> None:
    rule = opened("hetlora")
    idle = plus(honest(rule)[0])
    assert findings([*honest(rule), idle])[-1] is None


@pytest.mark.parametrize("count", [1, 4])
def test_few_updates_are_not_judged(count: int) -> None:
    rule = opened("hetlora")
    cohort = [*honest(rule)[: count - 1], *hostile(rule, 1000)[:1]]
    assert len(cohort) == count
    assert findings(cohort) == [None] * count


def test_larger_minimum_says_nothing_of_a_cohort_below_it() -> None:
    rule = opened("hetlora")
    cohort = [*honest(rule), *hostile(rule, 100)]
    assert findings(cohort, Screens(minimum_cohort=21)) == [None] * 20
    assert findings(cohort, Screens(minimum_cohort=20)) != [None] * 20


@pytest.mark.parametrize(
    ("name", "value", "odd"),
    [
        ("first_loss", 1e-5, True),
        ("first_loss", -3.0, True),
        ("first_loss", 1e4, True),
        ("held_out_loss_before", 0.0, True),
        ("held_out_loss_after", 1e4, True),
        ("last_loss", 1e4, True),
        ("last_loss", 0.0, False),  # it knows its few examples by heart
        ("first_loss", 0.1, False),
        ("first_loss", 4.0, False),
    ],
)
def test_losses_that_no_device_can_have_had_are_found(name: LossName, value: float, odd: bool) -> None:
    losses: list[dict[LossName, float]] = [
        {"first_loss": 0.7, "last_loss": 0.5, "held_out_loss_before": 0.7, "held_out_loss_after": 0.6}
        for _ in range(8)
    ]
    losses[2][name] = value
    found = findings(honest(opened("hetlora"))[:8], losses=losses)
    expected: list[str | None] = [None] * 8
    expected[2] = "loss" if odd else None
    assert screens_of(found) == expected


def test_losses_that_few_devices_told_are_not_judged() -> None:
    losses: list[Losses] = [{"held_out_loss_before": 10.0**number} for number in range(4)] + [{}] * 4
    assert findings(honest(opened("hetlora"))[:8], losses=losses) == [None] * 8


def test_screen_that_is_off_finds_nothing() -> None:
    rule = opened("hetlora")
    cohort = [*honest(rule), *hostile(rule, -100)]
    norms, directions = Screens(direction=None, loss=None), Screens(norm=None, loss=None)
    assert screens_of(findings(cohort, norms))[16:] == ["norm"] * 4
    assert screens_of(findings([*honest(rule), *hostile(rule, -1)], directions))[16:] == ["direction"] * 4
    assert findings(cohort, Screens(norm=None, direction=None)) == [None] * 20


def test_device_with_data_of_its_own_kind_is_spared() -> None:
    # A third of what the others learn, and as much of its own: its cosine is lower, and far from opposed.
    rule = opened("hetlora")
    along = [
        (s / 3 + t, u / 3 + v) for (s, u), (t, v) in zip(direction(5), direction(6, SIZE / 3), strict=True)
    ]
    assert findings([*honest(rule), moved(rule, RANK, along, 99)])[-1] is None


@given(seed=seeds, shuffle=st.permutations(range(9)), factor=st.sampled_from([-1.0, 1.0, 100.0]))
def test_verdict_does_not_depend_on_the_order(seed: int, shuffle: list[int], factor: float) -> None:
    rule = opened("hetlora")
    cohort = unequal(rule, seed, 9, 0.5)
    cohort[4] = stretched(cohort[4], factor)
    refs, load = stored(cohort)
    losses: list[Losses] = [{"first_loss": 0.5 + number} for number in range(9)]
    candidates = [*map(Candidate, refs, losses)]
    straight = screened(ALL, candidates, load)
    assert screened(ALL, [candidates[own] for own in shuffle], load) == [straight[own] for own in shuffle]


@given(seed=seeds, count=st.integers(5, 12))
def test_equal_updates_pass_or_fail_together_and_all_alike_pass(seed: int, count: int) -> None:
    one = moved(opened("hetlora"), RANK, direction(seed % 1000), seed)
    assert findings([one] * count) == [None] * count


def test_attacker_within_the_limits_is_not_found_and_clipping_bounds_what_it_does() -> None:
    # A fifth that moves both factors twice as far: about four times the honest change, and less than 4.5.
    rule = opened("hetlora")
    good = honest(rule)
    cohort = [*good, *hostile(rule, 2)]
    assert findings(cohort) == [None] * 20
    fair = effective(merged(rule, good).state)
    step = distance(fair, effective(state_of("hetlora")))
    without, clipped = (
        distance(effective(defended(defence, rule, cohort)[1].state), fair) / step
        for defence in (Defence(), Defence(clip=True, clip_factor=1.0))
    )
    assert without > 0.15
    assert clipped < 0.05


def test_of_two_halves_neither_is_taken_out() -> None:
    # Eight against eight: no median tells who is honest.
    rule = opened("hetlora")
    good = [moved(rule, RANK, direction(5), seed) for seed in range(8)]
    bad = [stretched(moved(rule, RANK, direction(5), 50 + seed), -1) for seed in range(8)]
    assert findings([*good, *bad]) == [None] * 16
