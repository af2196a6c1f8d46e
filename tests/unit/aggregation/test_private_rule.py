"""Rules with noise: what one device can move of the sum, what the noise is, and what of it is released."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cohorts import RANK, cohort, digest, initial, merged, products, random_adapter
from engine_rounds import bits, stored_round
from hypothesis import given, settings
from hypothesis import strategies as st
from keeping import Keeping

from aggregator_service.aggregation.engines.local import LocalEngine
from aggregator_service.aggregation.noise import BLOCK, FARTHEST, gaussian_noise, pair_length
from aggregator_service.aggregation.optimizers import with_optimizer
from aggregator_service.aggregation.private_rule import PRIVATE_RULES, TOLD, PrivateRule, PrivateSum
from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.rules.base import RoundRule
from aggregator_service.aggregation.stacks import stacked
from aggregator_service.aggregation.tree import LEAF_SIZE
from hetlora.messages.privacy import LEAST_DELTA, LEAST_NOISE, PrivacySettings
from hetlora.messages.rules import AnyRule, HetLoraRule, ZeroPadRule
from hetlora.messages.server_optimizer import ServerMomentum

KEY = b"a key of the round"
# So little noise that arithmetic can be looked at through it, and a clip that nothing reaches.
QUIET = PrivacySettings.model_construct(clip_norm=1e6, noise_multiplier=1e-12, weight_scale=1.0)


def private(rule: AnyRule, privacy: PrivacySettings, key: bytes = KEY, seed: int = 0) -> PrivateRule:
    """A first round that begins with random factors."""
    state = replace(first_state(rule, initial()), adapter=stacked(random_adapter(RANK, seed)))
    return PrivateRule.around(open_rule(rule, state), privacy, key)


def joint_vector(rule: PrivateRule, updates: Sequence[Update]) -> np.ndarray:
    """The numbers that noise is added to: of factors, of the weight, and of how many were clipped."""
    total: PrivateSum = rule.init()
    rule.accumulate(total, updates)
    weight = total.changes.weight * rule.privacy.weight_length
    return np.append(total.changes.values.values, [weight, TOLD * rule.privacy.clip_norm * total.clipped])


@pytest.mark.parametrize("rule", PRIVATE_RULES)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([0.0, 1e-3, 0.3, 1e3]),
    clip_norm=st.floats(1e-3, 1e3),
    left_out=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_leaving_any_device_out_moves_the_sum_by_no_more_than_the_clip(
    rule: type[AnyRule], seed: int, size: float, clip_norm: float, left_out: int
) -> None:
    opened = private(rule(), PrivacySettings(clip_norm=clip_norm, noise_multiplier=1), seed=seed)
    updates = cohort(opened, [1, 2, 3, RANK], seed, size)
    others = [own for number, own in enumerate(updates) if number != left_out]
    moved = np.linalg.norm(joint_vector(opened, updates) - joint_vector(opened, others))
    assert moved <= clip_norm * (1 + 1e-9)


def test_device_that_claims_many_examples_and_a_huge_change_moves_the_sum_by_the_clip() -> None:
    opened = private(ZeroPadRule(), PrivacySettings(clip_norm=2.0, noise_multiplier=1))
    (hostile,) = cohort(opened, [RANK], 1, size=1e6)
    hostile = replace(hostile, example_count=10**9)
    assert np.linalg.norm(joint_vector(opened, [hostile])) == pytest.approx(2.0)


def test_sum_within_the_clip_is_not_changed_by_it() -> None:
    # One update of weight 1 that moved one number by 0.3, and c = 0.4: its vector is 0.5 long, within 0.97 C.
    opened = private(
        ZeroPadRule(weights="uniform"), PrivacySettings(clip_norm=0.52, noise_multiplier=1, weight_scale=0.4)
    )
    received = opened.distribute(RANK).received
    values = received.values.copy()
    values[0] += 0.3
    vector = joint_vector(opened, [Update(received.with_values(values), 7, received)])
    assert vector[0] == pytest.approx(0.3, abs=1e-6)
    assert vector[-2] == pytest.approx(0.4, abs=1e-6)
    assert vector[-1] == 0


def test_share_of_clipped_updates_has_noise_as_all_else_that_is_released() -> None:
    # 30 of 40 devices claim far more than C; the count of them has noise of 0.5 / (1/4) = 2.
    privacy = PrivacySettings(clip_norm=1, noise_multiplier=0.5, weight_scale=0.1)
    shares = []
    for number in range(50):
        opened = private(ZeroPadRule(weights="uniform"), privacy, key=bytes([number]))
        received = opened.distribute(RANK).received
        moved = Update(received.with_values(received.values + 9), 1, received)
        idle = Update(received, 1, received)
        shares.append(merged(opened, [moved] * 30 + [idle] * 10).state.figures["clipped_share"])
    assert len(set(shares)) == 50
    assert np.mean(shares) == pytest.approx(30 / 40, abs=4 * 2 / 40 / math.sqrt(50))
    assert np.std(shares) == pytest.approx(2 / 40, rel=0.4)


@pytest.mark.parametrize("rule", PRIVATE_RULES)
@pytest.mark.parametrize("number", [np.finfo(np.float32).max, 1e30, 1e-38, 1e-45])
def test_update_of_the_largest_or_smallest_numbers_there_are_moves_the_sum_by_no_more_than_the_clip(
    rule: type[AnyRule], number: float
) -> None:
    opened = private(rule(), PrivacySettings(clip_norm=1, noise_multiplier=1))
    (update,) = cohort(opened, [RANK], 1)
    values = np.full_like(update.adapter.values, number)
    update = replace(update, adapter=update.adapter.with_values(values), example_count=10**9)
    assert np.linalg.norm(joint_vector(opened, [update])) <= 1 + 1e-9


def test_without_a_clip_and_noise_to_speak_of_one_device_gets_its_own_adapter_back() -> None:
    for rule in (HetLoraRule(), ZeroPadRule()):
        opened = private(rule, QUIET)
        (update,) = cohort(opened, [RANK], 3)
        after = merged(opened, [update]).state
        np.testing.assert_allclose(after.adapter.values, update.adapter.values, atol=2e-4)


def test_ranks_that_nobody_holds_stay_but_for_noise() -> None:
    opened = private(HetLoraRule(), QUIET)
    after = merged(opened, cohort(opened, [1, 1], 5)).state.adapter
    for stack, before in zip(after, opened.state.adapter, strict=True):
        np.testing.assert_allclose(stack.lora_A[:, 1:], before.lora_A[:, 1:], atol=2e-4)


def test_factor_that_is_not_sent_has_no_noise() -> None:
    rule = next(own for own in PRIVATE_RULES if own.model_fields["name"].default == "ffa")()
    opened = private(rule, PrivacySettings(clip_norm=1, noise_multiplier=10))
    after = merged(opened, cohort(opened, [2, RANK], 5)).state.adapter
    for stack, before in zip(after, opened.state.adapter, strict=True):
        np.testing.assert_array_equal(stack.lora_A, before.lora_A)
        assert (stack.lora_B != before.lora_B).all()


def test_noise_on_the_step_is_sigma_times_the_clip_over_the_noisy_weight() -> None:
    # 400 idle devices of weight 1 and c = 1, C = 2: W is 400, give or take 3, and the step is noise alone.
    opened = private(
        ZeroPadRule(weights="uniform"), PrivacySettings(clip_norm=2, noise_multiplier=1.5, weight_scale=1)
    )
    received = opened.distribute(RANK).received
    idle = [Update(received, 1, received)] * 400
    result = merged(opened, idle).state
    noise = result.adapter.values - opened.state.adapter.values
    assert noise.std() == pytest.approx(1.5 * 2 / 400, rel=0.1)
    assert abs(noise.mean()) < 4 * noise.std() / math.sqrt(noise.size)
    assert result.figures["noise_in_step"] == pytest.approx(1.5 * 2 / 400, rel=0.05)
    # Of a count with noise of 1.5 / (1/4) = 6 devices, none of which was clipped.
    assert result.figures["clipped_share"] <= 4 * 6 / 400


def test_same_key_gives_the_same_bits_and_another_key_others() -> None:
    updates = cohort(private(HetLoraRule(), QUIET), [2, 3, RANK], 1)
    loud = PrivacySettings(clip_norm=1, noise_multiplier=1)
    first, again = (merged(private(HetLoraRule(), loud), updates).state.adapter for _ in range(2))
    other = merged(private(HetLoraRule(), loud, b"another key"), updates).state.adapter
    assert digest(first) == digest(again) != digest(other)


def test_order_of_arrival_changes_no_bit() -> None:
    opened = private(HetLoraRule(), PrivacySettings(clip_norm=1, noise_multiplier=1))
    updates = cohort(opened, [1, 2, 3, RANK], 1)
    forwards, backwards = merged(opened, updates), merged(opened, updates[::-1])
    assert digest(forwards.state.adapter) == digest(backwards.state.adapter)


def test_server_optimizer_steps_by_what_is_released_alone() -> None:
    # FedAvgM of learning rate 1 and no momentum is the rule itself, noise and all.
    opened = private(HetLoraRule(), PrivacySettings(clip_norm=1, noise_multiplier=1))
    updates = cohort(opened, [1, 2, 3, RANK], 1)
    stepped = with_optimizer(opened, ServerMomentum(learning_rate=1.0, momentum=0.0))
    alone, after = merged(opened, updates).state, merged(stepped, updates).state
    np.testing.assert_allclose(after.adapter.values, alone.adapter.values, atol=1e-6)


def test_round_is_not_finished_without_a_key() -> None:
    opened = private(HetLoraRule(), QUIET, key=b"")
    with pytest.raises(AssertionError, match="never released"):
        merged(opened, cohort(opened, [RANK], 1))


def test_little_weight_beside_much_noise_does_not_make_a_huge_step() -> None:
    # One idle device: c W is 1 beside noise of 100, and W by chance near zero would be no bound at all.
    privacy = PrivacySettings(clip_norm=1, noise_multiplier=100, weight_scale=1)
    for number in range(20):
        opened = private(ZeroPadRule(weights="uniform"), privacy, key=bytes([number]))
        received = opened.distribute(RANK).received
        result = merged(opened, [Update(received, 1, received)]).state
        assert result.figures["noise_in_step"] <= 1
        assert products(result.adapter)


def test_noise_is_standard_normal_in_every_block() -> None:
    numbers = gaussian_noise(KEY, 4 * BLOCK + 1)
    assert numbers.size == 4 * BLOCK + 1
    for part in (numbers[: 2 * BLOCK], numbers[2 * BLOCK :]):
        assert part.mean() == pytest.approx(0, abs=5 / math.sqrt(part.size))
        assert part.var() == pytest.approx(1, abs=5 * math.sqrt(2 / part.size))
        # Shares within one and two deviations: 68.27 and 95.45 per cent.
        assert (abs(part) < 1).mean() == pytest.approx(0.6827, abs=0.005)
        assert (abs(part) < 2).mean() == pytest.approx(0.9545, abs=0.003)
    halves = numbers[:BLOCK], numbers[BLOCK : 2 * BLOCK]
    assert abs(np.corrcoef(*halves)[0, 1]) < 5 / math.sqrt(BLOCK)
    assert len(np.unique(numbers)) == numbers.size


def test_noise_begins_alike_however_much_is_asked_for() -> None:
    assert gaussian_noise(KEY, 0).size == 0
    assert gaussian_noise(KEY, 7)[0] != gaussian_noise(b"other", 7)[0]
    assert np.isfinite(gaussian_noise(KEY, 101)).all()


def test_length_of_a_pair_is_that_of_all_its_bits() -> None:
    # u = 2^-128, 2^-64 + 2^-128, 1/2, and 1, of which the logarithms are by hand.
    high = np.array([0, 1, 1 << 63, (1 << 64) - 1], np.uint64)
    low = np.array([0, 0, 0, (1 << 64) - 1], np.uint64)
    expected = [FARTHEST, math.sqrt(2 * 64 * math.log(2)), math.sqrt(2 * math.log(2)), 0.0]
    np.testing.assert_allclose(pair_length(high, low), expected, rtol=1e-15)
    assert pytest.approx(13.32, abs=0.01) == FARTHEST


def test_no_sum_tells_for_certain_that_noise_does_not_reach_it() -> None:
    # A device moves a sum by 1 / sigma deviations at most. Of the sums with it, what share lies where those
    # without it never do? A pair's length is Rayleigh's: P(length > x) = exp(-x^2 / 2).
    assert math.exp(-((FARTHEST - 1 / LEAST_NOISE) ** 2) / 2) < LEAST_DELTA / 1000


@pytest.mark.parametrize("rule", PRIVATE_RULES)
def test_sum_goes_on_from_any_leaf_to_the_same_bits(rule: type[AnyRule], tmp_path: Path) -> None:
    plain, refs, source = stored_round(tmp_path, rule(), 2 * LEAF_SIZE + 40)
    assert isinstance(plain, RoundRule)
    opened = PrivateRule.around(plain, PrivacySettings(clip_norm=1, noise_multiplier=1), KEY)
    progress = Keeping()
    expected = bits(LocalEngine().aggregate(opened, refs, source, progress))
    assert list(progress.kept) == [1, 2, 3]
    for reached in progress.kept:
        again = Keeping(reached, dict(progress.kept))
        assert bits(LocalEngine().aggregate(opened, refs, source, again)) == expected
