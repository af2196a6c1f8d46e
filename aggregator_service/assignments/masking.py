"""What a device does in a round with masks, step after step (ADR 0040); stages: see `rounds/masking.py`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from aggregator_service.assignments.assignments import lock_assignment, refuse_state
from aggregator_service.rounds.closing import advance_masks
from aggregator_service.rounds.masking import Cohort, Member, cohort_of, sealed_for
from aggregator_service.service import Service
from aggregator_service.storage.columns import MaskingStage
from aggregator_service.storage.masking_tables import MaskingMemberRow
from aggregator_service.storage.tables import AssignmentRow, RoundRow, RunRow
from hetlora.errors import MalformedMessage, StateConflict
from hetlora.masking.keys import check_keys
from hetlora.messages.masking import (
    MaskingStep,
    MaskingTask,
    MaskKeys,
    MaskReveal,
    MaskShares,
    Todo,
)
from hetlora.states import (
    LIVE_ASSIGNMENT,
    OPEN_ROUND,
    STARTED_ASSIGNMENT,
    AssignmentState,
    RoundState,
)

# Between two looks of one device, and for each member: all together ask some twenty times a second.
LEAST_WAIT_SECONDS: Final = 1.0
SECONDS_PER_MEMBER: Final = 0.05


def take_step(service: Service, device_id: str, assignment_id: str, step: MaskingStep) -> MaskingTask:
    """Take what a device tells, and answer what it is to do next; its lease begins anew.

    Raises:
        NotFound: no such assignment of the device.
        StateConflict: not started, of a run without masks, or a step that is not of this stage.
        MalformedMessage: keys that anybody could agree with, or shares that are not those of the cohort.
    """
    now = service.clock()
    with service.database.write() as session:
        assignment, run = lock_assignment(session, device_id, assignment_id, now)
        if run.settings.secure_aggregation is None:
            raise StateConflict("the run has no masks", got=run.id, expected="an update as it is")
        if assignment.state is AssignmentState.OFFERED:
            raise refuse_state(assignment, "a started assignment")
        row = session.get_one(RoundRow, assignment.round_id)
        if _has_part(assignment, row):
            _take(session, assignment, row, step)
            if assignment.state in LIVE_ASSIGNMENT:
                lease_ends = now + timedelta(seconds=run.settings.lease_seconds)
                assignment.lease_expires_at = max(assignment.lease_expires_at, lease_ends)
            advance_masks(session, run, row, now)
        if row.state is RoundState.AGGREGATING:
            service.wake.set()
        return _task(session, run, assignment, row)


def _has_part(assignment: AssignmentRow, row: RoundRow) -> bool:
    working = assignment.state in STARTED_ASSIGNMENT or assignment.state is AssignmentState.ACCEPTED
    return row.state in OPEN_ROUND and working


def _take(session: Session, assignment: AssignmentRow, row: RoundRow, message: MaskingStep) -> None:
    step = message.step
    if isinstance(step, MaskKeys):
        _take_keys(session, assignment, row, step)
    elif isinstance(step, MaskShares):
        _take_shares(*_placed(session, assignment), step)
    elif isinstance(step, MaskReveal):
        _take_reveal(*_placed(session, assignment), step)


def _take_keys(session: Session, assignment: AssignmentRow, row: RoundRow, keys: MaskKeys) -> None:
    check_keys(keys)
    told = session.get(MaskingMemberRow, assignment.id)
    if told is None:
        _check_new(session, row, keys)
        session.add(
            MaskingMemberRow(
                assignment_id=assignment.id,
                round_id=row.id,
                mask_key=keys.mask_key,
                share_key=keys.share_key,
            )
        )
    elif (told.mask_key, told.share_key) != (keys.mask_key, keys.share_key):
        raise StateConflict(
            "the assignment has other keys", got=keys.mask_key, expected=f"{told.mask_key}, told before"
        )


def _check_new(session: Session, row: RoundRow, keys: MaskKeys) -> None:
    """Raise MalformedMessage where another told one of these: members refuse a cohort that has it."""
    own = (keys.mask_key, keys.share_key)
    same = or_(MaskingMemberRow.mask_key.in_(own), MaskingMemberRow.share_key.in_(own))
    of_another = select(MaskingMemberRow.assignment_id).where(MaskingMemberRow.round_id == row.id, same)
    if session.scalar(of_another.limit(1)) is not None:
        raise MalformedMessage(
            "keys of another device of the round", got=own[0], expected="this device's own"
        )


def _placed(session: Session, assignment: AssignmentRow) -> tuple[Cohort, Member]:
    """The fixed cohort of an assignment, and its place there."""
    cohort = cohort_of(session, assignment.round_id)
    for own in cohort.members if cohort else ():
        if own.assignment is assignment:
            assert cohort is not None
            return cohort, own
    raise StateConflict("the cohort is not fixed", got="a later step", expected="keys, or a poll")


def _take_shares(cohort: Cohort, own: Member, step: MaskShares) -> None:
    if own.has_shared:
        return
    _expect(cohort, MaskingStage.SHARES)
    came = sorted(step.sealed, key=lambda share: share.device)
    _check_devices("shares", [share.device for share in came], [*range(len(cohort.members))])
    own.row.sealed = {str(share.device): share.sealed for share in came}


def _take_reveal(cohort: Cohort, own: Member, step: MaskReveal) -> None:
    if own.has_revealed:
        return
    _expect(cohort, MaskingStage.REVEALS)
    if not own.has_reported:
        raise refuse_state(own.assignment, "a masked update that is in")
    for what, shares, members in (
        ("seeds", step.seeds, cohort.reported),
        ("mask keys", step.mask_keys, cohort.dropped),
    ):
        devices = sorted(share.device for share in shares)
        _check_devices(f"shares of {what}", devices, [member.position for member in members])
    own.row.reveal = step


def _expect(cohort: Cohort, stage: MaskingStage) -> None:
    if cohort.stage is not stage:
        raise StateConflict("a step of another stage", got=stage, expected=f"what {cohort.stage} is for")


def _check_devices(what: str, got: list[int], expected: list[int]) -> None:
    if got != expected:
        raise MalformedMessage(f"{what} of a cohort", got=got, expected=f"one of each of {expected}")


def _task(session: Session, run: RunRow, assignment: AssignmentRow, row: RoundRow) -> MaskingTask:
    if not _has_part(assignment, row):
        accepted = assignment.state is AssignmentState.ACCEPTED
        return _over(row.reason if accepted else assignment.reason)
    cohort = cohort_of(session, row.id)
    if cohort is None:
        return _wait("the cohort is not complete", run.settings.goal_count)
    own = next((member for member in cohort.members if member.assignment is assignment), None)
    if own is None:
        return _over("not of this cohort")
    return _task_of(session, cohort, own)


def _task_of(session: Session, cohort: Cohort, own: Member) -> MaskingTask:
    if own.has_revealed:
        return _over("this device has done its part")
    if cohort.stage is MaskingStage.SHARES and not own.has_shared:
        return _to_do("share", "the cohort is complete", cohort, own)
    if cohort.stage is MaskingStage.UPLOADS and own.is_live:
        return _to_do("upload", "all have shared their secrets", cohort, own, **_shared(session, cohort, own))
    if cohort.stage is MaskingStage.REVEALS:
        reported = tuple(member.position for member in cohort.reported)
        shared = _shared(session, cohort, own)
        return _to_do("reveal", "all updates are in", cohort, own, reported=reported, **shared)
    return _wait("others are not as far", len(cohort.members))


def _to_do(todo: Todo, reason: str, cohort: Cohort, own: Member, **known: Any) -> MaskingTask:
    return MaskingTask(
        todo=todo,
        reason=reason,
        retry_after_seconds=0,
        position=own.position,
        threshold=cohort.threshold,
        members=tuple(member.message for member in cohort.members),
        **known,
    )


def _shared(session: Session, cohort: Cohort, own: Member) -> dict[str, Any]:
    """Who shared its secrets, and the shares that are for this device."""
    return {
        "sharers": tuple(member.position for member in cohort.sharers),
        "sealed": sealed_for(session, own.row.round_id, own.position),
    }


def _wait(reason: str, count: int) -> MaskingTask:
    return MaskingTask(
        todo="wait",
        reason=reason,
        retry_after_seconds=max(LEAST_WAIT_SECONDS, SECONDS_PER_MEMBER * count),
    )


def _over(reason: str) -> MaskingTask:
    return MaskingTask(todo="over", reason=reason, retry_after_seconds=0)


def check_may_upload(session: Session, assignment: AssignmentRow) -> None:
    """Raise StateConflict unless the cohort is at its masked updates, and waits for this assignment's."""
    cohort = cohort_of(session, assignment.round_id)
    waits = cohort is not None and cohort.stage is MaskingStage.UPLOADS
    if cohort is None or not waits or all(own.assignment is not assignment for own in cohort.sharers):
        raise StateConflict(
            "masked updates are not asked of this device now",
            got="an update" if cohort is None else f"an update in the stage {cohort.stage}",
            expected="the task upload",
        )
