"""Rounds of six devices, one of them hostile, without HTTP and without a worker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from service_bundle import SPEC
from service_verbs import add_device, deliver, started_run
from sqlalchemy import select

from aggregator_service.service import Service
from aggregator_service.storage.screen_tables import QuarantineRow
from aggregator_service.storage.tables import AssignmentRow, RoundRow, RunRow
from hetlora.adapter import Adapter, LoraFactors

HONEST = 5
HOSTILE = "device-hostile"


def update(seed: int, size: float = 1.0, sign: float = 1.0) -> Adapter:
    """What a device could send that moved the same way as all others, or the opposite, with its own noise."""
    shared, own = np.random.default_rng(5), np.random.default_rng(seed)

    def moved(factor: float, *shape: int) -> np.ndarray:
        step = shared.standard_normal(shape) + 0.3 * own.standard_normal(shape)
        return np.asarray(factor * step, np.float32)

    factors = {
        module.name: LoraFactors(
            moved(size, 2, module.in_features), moved(sign * size, module.out_features, 2)
        )
        for module in SPEC.modules
    }
    return Adapter(SPEC, factors)


def attacked_run(service: Service, bundle: str, hostile: bool = True, **settings: object) -> str:
    """A run with screens whose first round has five honest updates and one that is 10 000 times as long."""
    run_id = honest_run(service, bundle, **settings)
    if hostile:
        deliver(service, add_device(service, HOSTILE), update(99, 100.0))
    return run_id


def honest_run(service: Service, bundle: str, **settings: object) -> str:
    """The same with a place left for the sixth device."""
    run_id = started_run(service, bundle, **{"goal_count": HONEST + 1, "screens": {}} | settings)
    for number in range(HONEST):
        deliver(service, add_device(service, f"device-{number}"), update(number))
    return run_id


@dataclass(frozen=True)
class Stand:
    """What the database has of a run."""

    rounds: list[tuple[str, str]]
    assignments: dict[str, tuple[str, str, float | None]]  # by device: state, reason, weight
    quarantined: list[str]  # devices
    adapter_version: str | None


def stand_of(service: Service, run_id: str) -> Stand:
    with service.database.read() as session:
        rounds = session.scalars(select(RoundRow).where(RoundRow.run_id == run_id).order_by(RoundRow.id))
        assignments = session.scalars(select(AssignmentRow).where(AssignmentRow.run_id == run_id))
        return Stand(
            [(own.id, own.state.value) for own in rounds],
            {own.device_id: (own.state.value, own.reason, own.aggregation_weight) for own in assignments},
            list(session.scalars(select(QuarantineRow.device_id).order_by(QuarantineRow.id))),
            session.get_one(RunRow, run_id).adapter_version,
        )
