"""The stages of a round with masks (ADR 0040), and when each ends; the round is collecting in all of them.

keys     whoever has trained tells its keys; until the cohort is fixed there is no row of the round
shares   members share their secrets among themselves
uploads  those who did send masked updates, and submit them
reveals  those whose updates are in tell what takes the masks off the sum
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import null, select
from sqlalchemy.orm import Session

from aggregator_service.rounds.rounds import WINDOW_CLOSED, abort_live, minimum_reports
from aggregator_service.storage.columns import MaskingStage
from aggregator_service.storage.masking_tables import MaskingMemberRow, MaskingRoundRow
from aggregator_service.storage.tables import AssignmentRow, RoundRow, RunRow
from aggregator_service.storage.transitions import move, tell
from hetlora.messages.management import RunSettings
from hetlora.messages.masking import (
    LEAST_MASKED,
    MaskingTerms,
    MaskMember,
    MaskReveal,
    SealedShares,
    Weighing,
    least_threshold,
)
from hetlora.messages.rules import AnyRule, HetLoraRule, ZeroPadRule
from hetlora.states import LIVE_ASSIGNMENT, AssignmentState, RoundState

TOO_LATE: Final = "too late for its cohort's masks"


@dataclass(frozen=True, slots=True)
class Member:
    """One device's keys, shares and reveals, and its assignment."""

    row: MaskingMemberRow
    assignment: AssignmentRow
    has_shared: bool
    has_revealed: bool

    @property
    def position(self) -> int:
        """Its place in the cohort, which is fixed."""
        assert self.row.position is not None
        return self.row.position

    @property
    def is_live(self) -> bool:
        return self.assignment.state in LIVE_ASSIGNMENT

    @property
    def has_reported(self) -> bool:
        return self.assignment.state is AssignmentState.ACCEPTED

    @property
    def message(self) -> MaskMember:
        """What the others are told."""
        return MaskMember(device=self.position, mask_key=self.row.mask_key, share_key=self.row.share_key)


@dataclass(frozen=True, slots=True)
class Cohort:
    """Those whose masks belong together, by position."""

    stage: MaskingStage
    threshold: int
    members: Sequence[Member]

    @property
    def sharers(self) -> list[Member]:
        """Who shared its secrets, gone since or not."""
        return [own for own in self.members if own.has_shared]

    @property
    def reported(self) -> list[Member]:
        """Whose masked updates are in."""
        return [own for own in self.sharers if own.has_reported]

    @property
    def dropped(self) -> list[Member]:
        """Whose masks are in the others' updates, and whose own update is not there."""
        return [own for own in self.sharers if not own.has_reported]


@dataclass(frozen=True, slots=True)
class Advance:
    """What follows for the round: it is ready to be aggregated, or lacks something for good, or goes on."""

    ready: bool = False
    shortfall: str | None = None


def weighing_of(rule: AnyRule) -> Weighing | None:
    """How devices weigh what they mask; None where the rule's result is no one weighted mean of factors."""
    if isinstance(rule, HetLoraRule) and rule.weights == "model":
        return "norm"
    return rule.weights if isinstance(rule, ZeroPadRule) else None


def terms_of_masks(settings: RunSettings) -> MaskingTerms | None:
    """How devices of a run make what they mask; None where nothing is masked."""
    weighing = weighing_of(settings.rule)
    if settings.secure_aggregation is None or weighing is None:
        return None
    return MaskingTerms(
        rank=settings.max_rank, weighing=weighing, largest=settings.secure_aggregation.largest
    )


def is_fixed(session: Session, round_id: str) -> bool:
    """Whether a round's cohort is complete, and takes nobody else."""
    return session.get(MaskingRoundRow, round_id) is not None


def cohort_of(session: Session, round_id: str) -> Cohort | None:
    """The cohort of a round, once it is fixed."""
    row = session.get(MaskingRoundRow, round_id)
    if row is None:
        return None
    members = [own for own in _told(session, round_id) if own.row.position is not None]
    return Cohort(row.stage, row.threshold, sorted(members, key=lambda own: own.position))


def _told(session: Session, round_id: str) -> list[Member]:
    both = (
        select(
            MaskingMemberRow,
            AssignmentRow,
            MaskingMemberRow.sealed.is_not(null()),
            MaskingMemberRow.reveal.is_not(null()),
        )
        .join(AssignmentRow, AssignmentRow.id == MaskingMemberRow.assignment_id)
        .where(MaskingMemberRow.round_id == round_id)
        .order_by(MaskingMemberRow.assignment_id)
    )
    return [Member(*own) for own in session.execute(both)]


def sealed_for(session: Session, round_id: str, position: int) -> tuple[SealedShares, ...]:
    """What a cohort's members sealed for the one at a position, itself among them."""
    query = select(MaskingMemberRow.position, MaskingMemberRow.sealed).where(
        MaskingMemberRow.round_id == round_id, MaskingMemberRow.sealed.is_not(null())
    )
    return tuple(
        SealedShares(device=sender, sealed=(sealed or {})[str(position)])
        for sender, sealed in sorted(session.execute(query), key=lambda own: own.position)
    )


def reveals_of(cohort: Cohort) -> dict[int, MaskReveal]:
    """What was revealed, by the position of whoever revealed it; within the session of the cohort."""
    return {own.position: own.row.reveal for own in cohort.reported if own.row.reveal is not None}


def advance(session: Session, run: RunRow, row: RoundRow, now: datetime, *, window_is_over: bool) -> Advance:
    """Bring a collecting round to its next stage, if this one has ended; the run is locked.

    Where the report window is over, members who are late are told so, and the stage ends without them.
    """
    session.flush()
    cohort = cohort_of(session, row.id)
    if cohort is None:
        return _fix(session, run, row, now, window_is_over=window_is_over)
    late = [own for own in _awaited(cohort) if window_is_over]
    for own in late:
        move(session, own.assignment, AssignmentState.ABORTED, TOO_LATE, now)
    if cohort.stage is MaskingStage.REVEALS:
        return _revealed(cohort, window_is_over=window_is_over)
    if _awaited(cohort):
        return Advance()
    return _next(session, run, row, cohort, now)


def _fix(session: Session, run: RunRow, row: RoundRow, now: datetime, *, window_is_over: bool) -> Advance:
    told = [own for own in _told(session, row.id) if own.is_live]
    goal, least = run.settings.goal_count, least_members(run.settings)
    if len(told) < (least if window_is_over else goal):
        shortfall = f"{WINDOW_CLOSED} with keys of {len(told)} of {goal} devices, {least} needed"
        return Advance(shortfall=shortfall if window_is_over else None)
    for position, own in enumerate(told):
        own.row.position = position
    threshold = least_threshold(len(told))
    session.add(MaskingRoundRow(round_id=row.id, stage=MaskingStage.SHARES, threshold=threshold))
    reason = f"a cohort of {len(told)} has told its keys, and shares its secrets"
    if row.state is RoundState.SELECTING:
        move(session, row, RoundState.COLLECTING, reason, now)
    else:
        tell(session, row, reason, now)
    members = {own.assignment.id for own in told}
    abort_live(session, row, TOO_LATE, now, spared=members)
    _renew_window(run, row, now)
    return Advance()


def least_members(settings: RunSettings) -> int:
    """The smallest cohort of a run."""
    return max(LEAST_MASKED, minimum_reports(settings))


def _awaited(cohort: Cohort) -> list[Member]:
    """Live members who have not done what the stage is for, so far as it waits for each."""
    if cohort.stage is MaskingStage.SHARES:
        return [own for own in cohort.members if own.is_live and not own.has_shared]
    if cohort.stage is MaskingStage.UPLOADS:
        return [own for own in cohort.sharers if own.is_live]
    return []


def _next(session: Session, run: RunRow, row: RoundRow, cohort: Cohort, now: datetime) -> Advance:
    if cohort.stage is MaskingStage.SHARES:
        stage, done, needed = MaskingStage.UPLOADS, "shared", cohort.threshold
        count = sum(own.is_live for own in cohort.sharers)
    else:
        stage, done = MaskingStage.REVEALS, "sent their masked updates"
        count, needed = len(cohort.reported), max(cohort.threshold, minimum_reports(run.settings))
    if count < needed:
        return Advance(shortfall=f"{count} of a cohort of {len(cohort.members)} {done}, {needed} needed")
    session.get_one(MaskingRoundRow, row.id).stage = stage
    tell(session, row, f"{count} of a cohort of {len(cohort.members)} {done}; then {stage}", now)
    _renew_window(run, row, now)
    return Advance()


def _revealed(cohort: Cohort, *, window_is_over: bool) -> Advance:
    count = sum(own.has_revealed for own in cohort.reported)
    if count >= cohort.threshold:
        return Advance(ready=True)
    shortfall = f"{WINDOW_CLOSED} with {count} of {cohort.threshold} reveals"
    return Advance(shortfall=shortfall if window_is_over else None)


def _renew_window(run: RunRow, row: RoundRow, now: datetime) -> None:
    row.window_closes_at = now + timedelta(seconds=run.settings.report_window_seconds)
