"""The end of a round with masks: the masked vectors' sum, the masks taken off it, the mean of the cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aggregator_service.aggregation.optimizers import WithOptimizer
from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import stacked
from aggregator_service.rounds.masking import Cohort, cohort_of, reveals_of
from aggregator_service.service import Service
from aggregator_service.storage.tables import AssignmentRow, RoundRow
from aggregator_service.worker.stored_updates import UnreadableUpdate
from hetlora.errors import HetloraError, UnavailableError
from hetlora.masking.masks import recovered, unmask
from hetlora.masking.quantising import Masked, Quantiser
from hetlora.masking.vector import Vector, mean_of, size_of
from hetlora.masking.wire import read_masked
from hetlora.messages.management import RunSettings
from hetlora.messages.masking import MaskReveal


class RoundEnded(Exception):
    """What takes the masks off is gone: the run was stopped, or another process committed the round."""


def unmasked_state(
    service: Service,
    settings: RunSettings,
    row: RoundRow,
    state: GlobalState,
    accepted: Sequence[AssignmentRow],
) -> GlobalState:
    """The state after a round whose single updates nobody here has seen.

    Raises:
        RoundEnded: see the class.
        UnreadableUpdate: a masked vector is lost or rotten.
        UnavailableError: the store does not answer now.
        MalformedMessage, NonFiniteValues: what devices revealed does not take the masks off.
    """
    with service.database.read() as session:
        cohort = cohort_of(session, row.id)
        if cohort is None:
            raise RoundEnded
        reveals = reveals_of(cohort)
    spec = state.adapter.spec
    total = _masked_sum(service, row, accepted, size_of(spec, state.rank))
    mean = mean_of(_unmasked(cohort, reveals, total, settings), spec, state.rank)
    rule = open_rule(settings.rule, state)
    # Where nobody has any weight, as where every lora_B is zero, there is nothing to move by.
    after = rule.next_state(state.adapter if mean is None else stacked(mean))
    if settings.server_optimizer is None:
        return after
    return WithOptimizer(rule, settings.server_optimizer).stepped(after)


def _masked_sum(service: Service, row: RoundRow, accepted: Sequence[AssignmentRow], size: int) -> Masked:
    """The sum (size,) modulo 2^64, one vector in memory at a time; its order does not matter."""
    total, updates = np.zeros(size, np.uint64), service.updates(row.id)
    for assignment in accepted:
        sha256 = str(assignment.update_sha256)
        try:
            total += read_masked(updates.read(sha256), size)
        except UnavailableError:  # the update may be well
            raise
        except HetloraError as error:
            raise UnreadableUpdate(sha256) from error
    return total


def _unmasked(
    cohort: Cohort, reveals: Mapping[int, MaskReveal], total: Masked, settings: RunSettings
) -> Vector:
    assert settings.secure_aggregation is not None
    members = [own.message for own in cohort.members]
    unmask(total, members, *recovered(reveals, members, cohort.threshold))
    return Quantiser(settings.secure_aggregation.largest, len(members)).decode(total)
