"""Every rule by its name in `CASES`, opened on a state with a history."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from cases import CASES
from cohorts import RANK, settled

from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.rules.base import RoundRule

every_rule = pytest.mark.parametrize("name", CASES)


@cache
def state_of(name: str) -> GlobalState:
    """The settled state of a rule: one for all tests, which leave it as it is."""
    return settled(CASES[name].rule)


def opened(name: str, rank_total: int = 0) -> RoundRule[Any]:
    """A round on the settled state; `rank_total` as in `open_rule`."""
    return open_rule(CASES[name].rule, state_of(name), rank_total)


def fitting(name: str, ranks: Sequence[int]) -> list[int]:
    """Ranks that devices may take under a rule: these, or the run's where that is the only one."""
    return [RANK] * len(ranks) if CASES[name].equal_ranks else list(ranks)


def assert_sound(state: GlobalState) -> None:
    """Finite, and of the run's rank."""
    frozen = [] if state.frozen is None else [state.frozen.values]
    assert all(np.isfinite(own).all() for own in (state.adapter.values, *frozen, *state.tensors.values()))
    assert state.rank == RANK
