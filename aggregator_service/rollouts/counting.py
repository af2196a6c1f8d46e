"""What became of the devices of a rollout, counted where they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from aggregator_service.storage.rollout_tables import RolloutDeviceRow, RolloutRow
from aggregator_service.storage.tables import DeviceRow
from hetlora.messages.evaluation import MINIMUM_REPORTS
from hetlora.messages.rollouts import RolloutCounts
from hetlora.states import DeviceState, RolloutDeviceState

_S = RolloutDeviceState


@dataclass(frozen=True, slots=True)
class Standing:
    """How a rollout stands in its stage: `reports` and losses of the stage's own devices, failures of all."""

    reports: int
    all_reports: int
    failures: int  # failed or silent
    compared: int
    loss_increase: float | None  # of `MINIMUM_REPORTS` devices at least

    @property
    def failed_share(self) -> float:
        """Of all reports so far."""
        return self.failures / self.all_reports if self.all_reports else 0.0


def counts_of(session: Session, row: RolloutRow, now: datetime) -> RolloutCounts:
    """Devices by what became of them."""
    found = session.execute(
        select(RolloutDeviceRow.state, func.count())
        .where(RolloutDeviceRow.rollout_id == row.id)
        .group_by(RolloutDeviceRow.state)
    )
    counts = {state.value: count for state, count in found}
    silent = sum(_silent(session, row, now).values())
    return RolloutCounts.model_validate(counts | {"silent": silent})


def standing_of(session: Session, row: RolloutRow, now: datetime) -> Standing:
    """What the stage of a rollout is decided by; its losses are looked at once it has its reports."""
    found = session.execute(
        select(RolloutDeviceRow.stage, RolloutDeviceRow.state, func.count())
        .where(
            *_heard_in(row),
            RolloutDeviceRow.state.in_((_S.ADOPTED, _S.KEPT, _S.FAILED)),
        )
        .group_by(RolloutDeviceRow.stage, RolloutDeviceRow.state)
    )
    reports, failures = _silent(session, row, now), 0
    failures += reports.total()
    for stage, state, count in found:
        reports[stage] += count
        failures += count if state is _S.FAILED else 0
    is_decided = reports[row.stage] >= row.settings.stages[row.stage].least_reports
    compared, increase = _losses(session, row) if is_decided else (0, None)  # the one that reads rows
    return Standing(reports[row.stage], reports.total(), failures, compared, increase)


def _heard_in(row: RolloutRow) -> tuple[ColumnElement[bool], ...]:
    """The devices whose word counts: those that are accepted still, for joins with `DeviceRow`."""
    return (
        RolloutDeviceRow.rollout_id == row.id,
        DeviceRow.id == RolloutDeviceRow.device_id,
        DeviceRow.state == DeviceState.ACCEPTED,
    )


def _silent(session: Session, row: RolloutRow, now: datetime) -> Counter[int]:
    """By stage, the devices that took the version and were not heard of since for as long as a lease."""
    found = session.execute(
        select(RolloutDeviceRow.stage, func.count())
        .where(
            *_heard_in(row),
            RolloutDeviceRow.state == _S.STARTED,
            RolloutDeviceRow.lease_expires_at <= now,
        )
        .group_by(RolloutDeviceRow.stage)
    )
    return Counter({stage: count for stage, count in found})


def _losses(session: Session, row: RolloutRow) -> tuple[int, float | None]:
    found = select(func.count(), func.avg(RolloutDeviceRow.new_loss - RolloutDeviceRow.former_loss)).where(
        *_heard_in(row),
        RolloutDeviceRow.stage == row.stage,
        RolloutDeviceRow.state.in_((_S.ADOPTED, _S.KEPT)),
        RolloutDeviceRow.new_loss.is_not(None),
    )
    compared, increase = session.execute(found).one()
    return compared, float(increase) if compared >= MINIMUM_REPORTS else None
