"""FLTrust: small numbers, the formula where changes are linear in their factors, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import RANK, as_sent, assert_same, cohort, effective, seeds, settled
from defended import change, changes, defended, flat, stored, stretched, turned
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aggregator_service.aggregation.robust.defence import defend
from aggregator_service.aggregation.robust.fltrust import trust
from aggregator_service.aggregation.robust.line import at_share, line_of
from aggregator_service.aggregation.rules import open_rule
from hetlora.errors import StateConflict
from hetlora.messages.defence import Defence
from hetlora.messages.rules import FfaRule, ResidualExactRule

RULE = open_rule(ResidualExactRule(), settled(ResidualExactRule()))
FROZEN_A_STATE = settled(FfaRule())
FROZEN_A = open_rule(FfaRule(weights="uniform"), FROZEN_A_STATE)
FLTRUST = Defence(method="fltrust", trusted_device="own", clip_factor=1e6)
few = settings(max_examples=25)


def test_trust_is_the_cosine_and_a_negative_one_is_none() -> None:
    # D_0 = (1, 0); (2, 0), (0, 3), (-1, 0), (3, 4) and (0, 0): cosines 1, 0, -1, 3 / 5 and none.
    found = trust(np.array([2.0, 0, -1, 3, 0]), np.array([2.0, 3, 1, 5, 0]), 1.0)
    assert found == pytest.approx([1, 0, 0, 0.6, 0])


def test_trusted_update_that_learned_nothing_trusts_none() -> None:
    assert not trust(np.array([0.0, 0.0]), np.array([1.0, 2.0]), 0.0).any()


@few
@given(seed=seeds, scales=st.lists(st.floats(0.05, 20), min_size=4, max_size=4))
def test_result_is_the_formula_where_one_factor_is_trained(seed: int, scales: list[float]) -> None:
    updates = cohort(FROZEN_A, [RANK] * 5, seed)
    # Noise has next to no common direction: two updates have the first one's, and against it.
    updates = [updates[0], *(stretched(own, by) for own, by in zip(updates[1:], scales, strict=True))]
    updates[1], updates[2] = stretched(updates[0], -scales[0]), stretched(updates[0], scales[1])
    dense = changes(updates)
    norms = np.linalg.norm(dense, axis=1)
    trusts = np.maximum(dense @ dense[0] / (norms * norms[0]), 0)
    scaled = (trusts * norms[0] / norms) @ dense / trusts.sum()
    _, result = defended(FLTRUST, FROZEN_A, updates, trusted=0)
    got = flat(effective(result.state)) - flat(effective(FROZEN_A_STATE))
    np.testing.assert_allclose(got, scaled, atol=1e-4 * np.abs(scaled).max() + 1e-5)


@few
@given(rank=st.integers(1, RANK), seed=seeds, factor=st.sampled_from([-40.0, 0.01, 0.3, 1.0, 9.0, 1e4]))
def test_every_change_is_brought_to_the_trusted_length(rank: int, seed: int, factor: float) -> None:
    own, other = cohort(RULE, [RANK, rank], seed)
    own_norm, line = line_of(own).norm(), line_of(stretched(other, factor))
    share = line.share_matching(own_norm, 1e9 * line.movement)
    assert line.norm(share) == pytest.approx(own_norm, rel=1e-6)


def test_factors_move_no_further_than_the_limit_to_reach_the_length() -> None:
    # 1e-6 of the way would have to be gone a million times.
    own, other = cohort(RULE, [RANK, RANK], 1)
    short = stretched(other, 1e-6)
    line = line_of(short)
    share = line.share_matching(line_of(own).norm(), 2 * line_of(own).movement)
    assert share * line.movement <= 2 * line_of(own).movement * (1 + 1e-9)
    assert line.norm(share) <= line_of(own).norm()


@few
@given(ranks=st.lists(st.integers(1, RANK), min_size=2, max_size=6), seed=seeds, turn=seeds)
def test_no_gauge_changes_the_trust(ranks: list[int], seed: int, turn: int) -> None:
    updates = cohort(RULE, ranks, seed)
    other = [turned(update, turn + number, 0.5) for number, update in enumerate(updates)]
    trusts = []
    for one in (updates, other):
        refs, load = stored(one)
        found = defend(FLTRUST, refs, load, refs[0])
        trusts.append([found.trust[ref] for ref in refs])
    np.testing.assert_allclose(trusts[1], trusts[0], atol=1e-4)


def test_update_of_the_opposite_direction_is_left_out() -> None:
    own = cohort(RULE, [RANK], 1)[0]
    hostile = stretched(own, -1)
    screened, result = defended(FLTRUST, RULE, [own, hostile, stretched(own, 3)], trusted=0)
    assert [ref.sha256 for ref in screened.left_out] == ["0001"]
    assert sum(result.weights.values()) == pytest.approx(1)


def test_trusted_update_need_not_be_of_the_cohort() -> None:
    updates = cohort(FROZEN_A, [RANK] * 3, 5)
    refs, load = stored([*updates, stretched(updates[0], 2)])
    screened = defend(FLTRUST, refs[:3], load, refs[3])
    treated = screened.treated(refs[0], load(refs[0]))
    twice = {name: 2 * own for name, own in change(updates[0]).items()}
    assert_same(change(treated), twice, 1e-5)


def test_round_in_which_nothing_is_trusted_is_refused() -> None:
    own = cohort(RULE, [RANK], 1)[0]
    idle = as_sent(RULE.distribute(2))
    refs, load = stored([stretched(own, -1), own, idle])
    with pytest.raises(StateConflict, match="trusts no update"):
        defend(FLTRUST, refs[:1], load, refs[1])
    with pytest.raises(StateConflict, match="trusts no update"):
        defend(FLTRUST, refs[:2], load, refs[2])


def test_round_without_an_update_of_the_trusted_device_is_refused() -> None:
    refs, load = stored(cohort(RULE, [2, 3], 1))
    with pytest.raises(StateConflict, match="no update of the trusted device"):
        defend(FLTRUST, refs, load)


@pytest.mark.parametrize("given_", [{"method": "fltrust"}, {"method": "krum", "trusted_device": "own"}])
def test_trusted_device_belongs_to_fltrust_and_to_no_other_method(given_: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="trusted_device"):
        Defence.model_validate(given_)


def test_line_from_nothing_to_nothing_has_no_share() -> None:
    idle = as_sent(RULE.distribute(2))
    assert line_of(idle).share_matching(1.0, 1.0) == 0.0
    assert_same(change(at_share(idle, 0.0)), change(idle))
