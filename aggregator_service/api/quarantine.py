"""`/management/v1`: updates in quarantine, reputations of devices, and when these are suspended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from fastapi import Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.api.errors import problems
from aggregator_service.api.objects import BINARY, object_response
from aggregator_service.api.operator_route import operator_router
from aggregator_service.api.pages import DEFAULT_LIMIT, Cursor, Limit, page_of_views
from aggregator_service.api.route import ServiceOf
from aggregator_service.api.views import population_status
from aggregator_service.screens.quarantine import decide, get_quarantined
from aggregator_service.screens.reputation import reputation_of
from aggregator_service.screens.suspensions import set_rule
from aggregator_service.service import Service
from aggregator_service.storage.screen_tables import QuarantineRow
from aggregator_service.storage.tables import AssignmentRow, DeviceRow, PopulationRow, RoundRow
from hetlora.errors import NotFound
from hetlora.messages.common import Identifier, Name, Page
from hetlora.messages.fleet import PopulationStatus
from hetlora.messages.quarantine import (
    QuarantineDecision,
    QuarantinedUpdate,
    QuarantineVerb,
    Reputation,
    SuspensionSetting,
)
from hetlora.messages.screens import ScreenName
from hetlora.states import QuarantineState

router = operator_router()


@router.get("/quarantine")
def list_quarantine(
    service: ServiceOf,
    run_id: Identifier | None = None,
    device_id: Identifier | None = None,
    state: QuarantineState | None = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[QuarantinedUpdate]:
    asked = (
        (QuarantineRow.run_id, run_id),
        (QuarantineRow.device_id, device_id),
        (QuarantineRow.state, state),
    )
    conditions = [column == value for column, value in asked if value is not None]
    return page_of_views(
        service,
        QuarantineRow,
        QuarantineRow.id,
        _quarantined_updates,
        *conditions,
        cursor=cursor,
        limit=limit,
        newest_first=True,
    )


def _quarantined_updates(session: Session, rows: Sequence[QuarantineRow]) -> list[QuarantinedUpdate]:
    """Quarantined updates, whose assignments, rounds and devices are asked for at once."""
    kept = session.execute(
        select(AssignmentRow, RoundRow, DeviceRow)
        .join(RoundRow, RoundRow.id == AssignmentRow.round_id)
        .join(DeviceRow, DeviceRow.id == AssignmentRow.device_id)
        .where(AssignmentRow.id.in_([row.id for row in rows]))
    ).all()
    found = [quarantined_update(session, row) for row in rows]
    del kept
    return found


@router.get("/quarantine/{assignment_id}", responses=problems(404))
def get_quarantined_update(assignment_id: Identifier, service: ServiceOf) -> QuarantinedUpdate:
    return _status(service, assignment_id)


@router.get("/quarantine/{assignment_id}/content", response_class=Response, responses=BINARY)
def get_quarantined_content(assignment_id: Identifier, request: Request, service: ServiceOf) -> Response:
    with service.database.read() as session:
        row = get_quarantined(session, assignment_id)
    if row.dropped:
        raise NotFound("the quarantined update is kept no more", got=assignment_id)
    return object_response(
        request,
        service.quarantined(row.id),
        row.sha256,
        "application/octet-stream",
        known_bytes=row.size_bytes,
    )


@router.post("/quarantine/{assignment_id}:{verb}", responses=problems(404, 408, 409, 413))
def post_quarantine_verb(
    assignment_id: Identifier, verb: QuarantineVerb, message: QuarantineDecision, service: ServiceOf
) -> QuarantinedUpdate:
    decide(service, assignment_id, verb, message.reason)
    return _status(service, assignment_id)


@router.get("/devices/{device_id}/reputation", responses=problems(404))
def get_reputation(device_id: Identifier, service: ServiceOf) -> Reputation:
    with service.database.read() as session:
        return reputation_of(session, device_id)


@router.post("/populations/{name}:suspend-after", responses=problems(404, 408, 413))
def post_suspension_rule(name: Name, message: SuspensionSetting, service: ServiceOf) -> PopulationStatus:
    set_rule(service, name, message)
    with service.database.read() as session:
        return population_status(session, session.get_one(PopulationRow, name))


def _status(service: Service, assignment_id: str) -> QuarantinedUpdate:
    with service.database.read() as session:
        return quarantined_update(session, get_quarantined(session, assignment_id))


def quarantined_update(session: Session, row: QuarantineRow) -> QuarantinedUpdate:
    """A quarantined update as operators see it."""
    assignment = session.get_one(AssignmentRow, row.id)
    work = session.get_one(RoundRow, assignment.round_id)
    assert assignment.report is not None, "an update came with a report"
    return QuarantinedUpdate(
        assignment_id=row.id,
        run_id=row.run_id,
        round_index=work.round_index,
        attempt=work.attempt,
        device_id=row.device_id,
        device_name=session.get_one(DeviceRow, row.device_id).name,
        state=row.state,
        reason=row.reason,
        screen=cast(ScreenName, row.screen),
        finding=row.finding,
        figures=row.figures,
        rank=assignment.rank,
        example_count=assignment.report.example_count,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        kept=not row.dropped,
        quarantined_at=row.quarantined_at,
    )
