"""Groups and rollouts as operators see them: nothing of a single device's losses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.orm import Session

from aggregator_service.rollouts.counting import counts_of
from aggregator_service.storage.rollout_tables import GroupRow, RolloutDeviceRow, RolloutRow
from hetlora.messages.rollouts import GroupStatus, RolloutDeviceStatus, RolloutStatus


def group_status(session: Session, row: GroupRow) -> GroupStatus:
    return GroupStatus(
        group_id=row.id,
        population=row.population,
        name=row.name,
        filter=row.filter,
        created_at=row.created_at,
    )


def rollout_status_at(now: datetime) -> Callable[[Session, RolloutRow], RolloutStatus]:
    """The view of a moment: it says which devices have fallen silent."""

    def rollout_status(session: Session, row: RolloutRow) -> RolloutStatus:
        return RolloutStatus(
            rollout_id=row.id,
            population=row.population,
            version=row.version,
            former=row.former,
            group=row.group_name,
            filter=row.filter,
            settings=row.settings,
            state=row.state,
            reason=row.reason,
            stage=row.stage + 1,
            stage_began_at=row.stage_began_at,
            created_at=row.created_at,
            ended_at=row.ended_at,
            counts=counts_of(session, row, now),
            stages_decided=row.decided.stages,
        )

    return rollout_status


def rollout_device_status(session: Session, row: RolloutDeviceRow) -> RolloutDeviceStatus:
    return RolloutDeviceStatus(
        ask_id=row.id,
        rollout_id=row.rollout_id,
        device_id=row.device_id,
        stage=row.stage + 1,
        state=row.state,
        reason=row.reason,
        rank=row.rank,
    )
