"""What moves a rollout on, or back, with no hand on it: the worker reads a stage's counts and decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from aggregator_service.operators.audit import note_own
from aggregator_service.rollouts.counting import Standing, standing_of
from aggregator_service.rollouts.rollouts import UNDER_WAY, lock_version, roll_back
from aggregator_service.storage.rollout_tables import RolloutDeviceRow, RolloutRow
from aggregator_service.storage.transitions import move, tell
from hetlora.messages.evaluation import MINIMUM_REPORTS
from hetlora.messages.rollouts import RolloutStage, StageFigures, StagesDecided
from hetlora.states import AdapterVersionState, RolloutState


def all_under_way(session: Session) -> Sequence[str]:
    """The rollouts that `settle` may change."""
    return session.scalars(select(RolloutRow.id).where(RolloutRow.state.in_(UNDER_WAY))).all()


def settle(session: Session, row: RolloutRow, now: datetime) -> None:
    """Bring a locked rollout up to the present: back where its stage is too bad, on where that is good.

    A paused one, and any inside a freeze window, does not move on, and is rolled back all the same.
    """
    if row.state not in UNDER_WAY:
        return
    stage, standing = row.settings.stages[row.stage], standing_of(session, row, now)
    if standing.reports < stage.least_reports:
        return
    fault = fault_of(stage, standing)
    if fault is not None:
        _decide(row, standing, "rolled_back")
        reason = f"stage {row.stage + 1} of {len(row.settings.stages)}: {fault}"
        roll_back(session, row, reason, now)
        note_own(session, f"roll back: {reason}", row.id, now)
        return
    if row.state is RolloutState.PAUSED or not _is_over(row, stage, standing, now):
        return
    if row.stage + 1 < len(row.settings.stages):
        _move_on(session, row, standing, now)
    else:
        _complete(session, row, standing, now)


def fault_of(stage: RolloutStage, standing: Standing) -> str | None:
    """What of a stage that has its reports is worse than it may be, in words with the figures."""
    if standing.failed_share > stage.most_failed_share:
        return (
            f"{standing.failures} of {standing.all_reports} devices failed or fell silent, "
            f"more than the share of {stage.most_failed_share:g} that may"
        )
    increase, most = standing.loss_increase, stage.most_loss_increase
    if increase is not None and most is not None and increase > most:
        return (
            f"the loss on held-out examples rose by {increase:.4g}, mean of {standing.compared} devices, "
            f"more than the {most:g} that it may"
        )
    return None


def _is_over(row: RolloutRow, stage: RolloutStage, standing: Standing, now: datetime) -> bool:
    """Whether a stage without a fault has been looked at for long enough, and now is no frozen time."""
    assert row.stage_began_at is not None, "since its start"
    if stage.most_loss_increase is not None and standing.compared < MINIMUM_REPORTS:
        return False
    if now < row.stage_began_at + timedelta(seconds=stage.settle_seconds):
        return False
    return not any(window.begins_at <= now < window.ends_at for window in row.settings.freeze)


def _figures_in_words(row: RolloutRow, standing: Standing) -> str:
    loss = standing.loss_increase
    told = "" if loss is None else f", loss changed by {loss:+.4g} on the mean of {standing.compared}"
    return (
        f"stage {row.stage + 1} of {len(row.settings.stages)}: {standing.reports} reports, "
        f"{standing.failures} of {standing.all_reports} failed or silent{told}"
    )


def _decide(row: RolloutRow, standing: Standing, outcome: str) -> None:
    figures = StageFigures.model_validate(
        {
            "stage": row.stage + 1,
            "reports": standing.reports,
            "failed_share": standing.failed_share,
            "compared": standing.compared,
            "loss_increase": standing.loss_increase,
            "outcome": outcome,
        }
    )
    row.decided = StagesDecided(stages=(*row.decided.stages, figures))


def _move_on(session: Session, row: RolloutRow, standing: Standing, now: datetime) -> None:
    _decide(row, standing, "moved_on")
    reason = _figures_in_words(row, standing)
    tell(session, row, reason, now)
    note_own(session, f"move on: {reason}", row.id, now)
    _forget_losses(session, row)
    row.stage, row.stage_began_at = row.stage + 1, now


def _complete(session: Session, row: RolloutRow, standing: Standing, now: datetime) -> None:
    _decide(row, standing, "completed")
    reason = _figures_in_words(row, standing)
    move(session, row, RolloutState.COMPLETED, reason, now)
    note_own(session, f"complete: {reason}", row.id, now)
    _forget_losses(session, row)
    row.ended_at = now
    told = f"rollout {row.id} completed: {reason}"
    version = lock_version(session, row.version)
    if version.state is AdapterVersionState.CANARY:
        move(session, version, AdapterVersionState.ROLLED_OUT, told, now)
    _take_over(session, row)
    former = lock_version(session, row.former)
    asked_for = exists().where(RolloutRow.version == row.former, RolloutRow.asks)
    if former.state is AdapterVersionState.ROLLED_OUT and not session.scalar(select(asked_for)):
        move(session, former, AdapterVersionState.SUPERSEDED, told, now)


def _take_over(session: Session, row: RolloutRow) -> None:
    """Devices that come later are asked by this one, and no longer by those of the same group before it."""
    asking = RolloutRow.population == row.population, RolloutRow.asks, RolloutRow.id != row.id
    for other in session.scalars(select(RolloutRow).where(*asking).with_for_update(key_share=True)).all():
        if other.filter == row.filter:
            other.asks = False


def _forget_losses(session: Session, row: RolloutRow) -> None:
    session.execute(
        update(RolloutDeviceRow)
        .where(RolloutDeviceRow.rollout_id == row.id, RolloutDeviceRow.stage <= row.stage)
        .where(RolloutDeviceRow.new_loss.is_not(None))
        .values(new_loss=None, former_loss=None)
    )
