"""When a checkpoint is worth its while, and what it follows from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from large_round import add_large_round
from service_bundle import SPEC
from sqlalchemy import select

from aggregator_service.aggregation.progress import Reached
from aggregator_service.aggregation.rule import UpdateRef
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.tree import LEAF_SIZE
from aggregator_service.service import Service
from aggregator_service.storage.tables import CheckpointRow, RoundRow
from aggregator_service.worker.checkpoints import (
    FIRST_SECONDS,
    MOST_OF_A_ROUND,
    TIMES_ITS_COST,
    Checkpoints,
    inputs_of,
)
from hetlora.adapter import initial_adapter
from hetlora.messages.management import RunSettings
from hetlora.messages.rules import FlexLoraRule, ZeroPadRule

STATE = first_state(ZeroPadRule(), initial_adapter(SPEC, 2, np.random.default_rng(0)))
# Two leaves for each checkpoint that a round may have.
REFS = [UpdateRef(f"{number:064x}") for number in range(2 * MOST_OF_A_ROUND * LEAF_SIZE)]
SETTINGS = RunSettings.model_validate({"rounds": 1, "goal_count": 1, "max_rank": 2})


@dataclass
class Seconds:
    """A clock that goes on by a step whenever it is asked."""

    now: float = 0.0
    step: float = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def round_id(service: Service, bundle: str) -> str:
    add_large_round(service, bundle, 1)
    with service.database.read() as session:
        return session.scalars(select(RoundRow.id)).one()


def reached(leaf_count: int) -> Reached[Any]:
    partial = open_rule(ZeroPadRule(), STATE).init()
    return Reached(leaf_count, ((leaf_count, partial),), (1.0,) * leaf_count * LEAF_SIZE)


def kept(service: Service) -> list[int]:
    with service.database.read() as session:
        return [*session.scalars(select(CheckpointRow.leaf_count).order_by(CheckpointRow.leaf_count))]


def test_short_rounds_keep_nothing_and_long_ones_a_few_at_a_small_share_of_their_time(
    service: Service, round_id: str
) -> None:
    seconds = Seconds()
    progress = Checkpoints(service, round_id, "", seconds)
    assert progress.found(open_rule(ZeroPadRule(), STATE), REFS).leaf_count == 0
    seconds.now = 0.99 * FIRST_SECONDS
    assert not progress.due(2)
    seconds.now = FIRST_SECONDS
    assert [progress.due(leaf_count) for leaf_count in (1, 2)] == [False, True]
    seconds.step = 0.5
    progress.keep(reached(2))
    seconds.step, ended = 0.0, seconds.now
    assert kept(service) == [2]
    # It took one step of the clock, half a second.
    seconds.now = ended + TIMES_ITS_COST * 0.5 - 0.1
    assert not progress.due(4)
    seconds.now = ended + TIMES_ITS_COST * 0.5
    assert [progress.due(leaf_count) for leaf_count in (3, 4)] == [False, True]


def test_stack_is_never_kept(service: Service, round_id: str) -> None:
    seconds = Seconds()
    progress = Checkpoints(service, round_id, "", seconds)
    progress.found(open_rule(FlexLoraRule(), STATE), REFS)
    seconds.now = 1e6
    assert not progress.due(len(REFS))


def test_checkpoint_that_cannot_be_written_ends_no_round(service: Service, round_id: str) -> None:
    progress = Checkpoints(service, round_id, "", Seconds())
    progress.found(open_rule(ZeroPadRule(), STATE), REFS)
    incoming = service.store.incoming
    incoming.rename(incoming.with_suffix(".aside"))
    progress.keep(reached(2))
    assert kept(service) == []
    incoming.with_suffix(".aside").rename(incoming)
    progress.keep(reached(2))
    assert kept(service) == [2]


def test_checkpoint_of_other_inputs_is_not_found(service: Service, round_id: str) -> None:
    rule = open_rule(ZeroPadRule(), STATE)
    before = Checkpoints(service, round_id, "inputs", Seconds())
    before.found(rule, REFS)
    before.keep(reached(2))

    def found(inputs: str, refs: list[UpdateRef]) -> int:
        return Checkpoints(service, round_id, inputs, Seconds()).found(rule, refs).leaf_count

    last = 2 * LEAF_SIZE - 1
    assert found("inputs", REFS) == found("inputs", REFS[::-1]) == found("inputs", REFS[: last + 1]) == 2
    assert found("others", REFS) == found("inputs", REFS[1:]) == found("inputs", REFS[:last]) == 0
    for change in ({"example_count": 2}, {"rank": 1}, {"staleness": 1}, {"received_sha256": "a"}):
        refs = [replace(ref, **change) if number == last else ref for number, ref in enumerate(REFS)]
        assert found("inputs", refs) == 0


def test_inputs_are_the_whole_settings_the_version_and_where_it_counts_the_cohort() -> None:
    others = SETTINGS.model_copy(update={"rule": ZeroPadRule(weights="uniform")})
    told = [
        inputs_of(SETTINGS, "v1", []),
        inputs_of(others, "v1", []),
        inputs_of(SETTINGS, "v2", []),
        inputs_of(SETTINGS, "v1", REFS[:1]),
        inputs_of(SETTINGS, "v1", REFS[:2]),
    ]
    assert len({*told}) == len(told)
    assert inputs_of(SETTINGS.model_copy(), "v1", [*REFS[:2]]) == told[-1]
