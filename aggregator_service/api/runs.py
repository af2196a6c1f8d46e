"""`/management/v1`: runs, their rounds and assignments, and the adapters that they made."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query, Request, Response
from sqlalchemy import select

from aggregator_service.api.errors import problems
from aggregator_service.api.objects import BINARY, object_response
from aggregator_service.api.operator_route import AuditEntryOf, IdempotencyKeyOf, operator_router
from aggregator_service.api.pages import DEFAULT_LIMIT, Cursor, Limit, NewestFirst, page_of, page_of_views
from aggregator_service.api.route import ServiceOf
from aggregator_service.api.views import (
    adapter_version_status,
    assignment_statuses,
    round_status,
    run_status,
)
from aggregator_service.registry.versions import get_version
from aggregator_service.rounds.round_figures import figures_of
from aggregator_service.rounds.runs import RunVerb, change_run, create_run, get_run
from aggregator_service.service import Service
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow, RunRow, frozen_of
from hetlora.errors import NotFound
from hetlora.messages.common import Identifier, Page
from hetlora.messages.figures import RoundFigures
from hetlora.messages.management import (
    AdapterVersionStatus,
    AssignmentStatus,
    RoundStatus,
    RunCreate,
    RunStatus,
)

MAX_ROUND_INDEX: Final = 2**31 - 1  # as the database counts them

router = operator_router()


def _status(service: Service, run_id: str) -> RunStatus:
    with service.database.read() as session:
        return run_status(session, get_run(session, run_id))


@router.post("/runs", status_code=201, responses=problems(404, 408, 409, 413))
def post_run(
    message: RunCreate, service: ServiceOf, entry: AuditEntryOf, asked: IdempotencyKeyOf
) -> RunStatus:
    entry.subject = create_run(service, message, asked)
    return _status(service, entry.subject)


@router.get("/runs")
def list_runs(
    service: ServiceOf,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
    newest_first: NewestFirst = False,
) -> Page[RunStatus]:
    return page_of(
        service, RunRow, RunRow.id, run_status, cursor=cursor, limit=limit, newest_first=newest_first
    )


@router.get("/runs/{run_id}", responses=problems(404))
def get_run_status(run_id: Identifier, service: ServiceOf) -> RunStatus:
    return _status(service, run_id)


@router.get("/runs/{run_id}/rounds", responses=problems(404))
def list_rounds(
    run_id: Identifier,
    service: ServiceOf,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
    newest_first: NewestFirst = False,
) -> Page[RoundStatus]:
    _status(service, run_id)
    of_run = RoundRow.run_id == run_id
    return page_of(
        service,
        RoundRow,
        RoundRow.id,
        round_status,
        of_run,
        cursor=cursor,
        limit=limit,
        newest_first=newest_first,
    )


@router.get("/runs/{run_id}/figures", responses=problems(404))
def list_figures(
    run_id: Identifier,
    service: ServiceOf,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
    newest_first: NewestFirst = False,
) -> Page[RoundFigures]:
    _status(service, run_id)
    return page_of_views(
        service,
        RoundRow,
        RoundRow.id,
        figures_of,
        RoundRow.run_id == run_id,
        cursor=cursor,
        limit=limit,
        newest_first=newest_first,
    )


@router.get("/runs/{run_id}/assignments", responses=problems(404))
def list_assignments(
    run_id: Identifier,
    service: ServiceOf,
    round_index: Annotated[int | None, Query(ge=0, le=MAX_ROUND_INDEX)] = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[AssignmentStatus]:
    _status(service, run_id)
    conditions = [AssignmentRow.run_id == run_id]
    if round_index is not None:
        attempts = select(RoundRow.id).where(RoundRow.run_id == run_id, RoundRow.round_index == round_index)
        conditions.append(AssignmentRow.round_id.in_(attempts))
    return page_of_views(
        service, AssignmentRow, AssignmentRow.id, assignment_statuses, *conditions, cursor=cursor, limit=limit
    )


@router.get("/runs/{run_id}/adapters", responses=problems(404))
def list_adapters(
    run_id: Identifier, service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[AdapterVersionStatus]:
    _status(service, run_id)
    return page_of(
        service,
        AdapterVersionRow,
        AdapterVersionRow.id,
        adapter_version_status,
        AdapterVersionRow.run_id == run_id,
        cursor=cursor,
        limit=limit,
        newest_first=True,
    )


@router.get("/adapters/{version}/content", response_class=Response, responses=BINARY)
def get_adapter(version: Identifier, request: Request, service: ServiceOf) -> Response:
    row = _version(service, version)
    return object_response(
        request, service.objects, row.sha256, "application/octet-stream", known_bytes=row.size_bytes
    )


@router.get("/adapters/{version}/frozen", response_class=Response, responses=BINARY)
def get_frozen_adapter(version: Identifier, request: Request, service: ServiceOf) -> Response:
    row = _version(service, version)
    frozen = frozen_of(row)
    if frozen is None:
        raise NotFound("this adapter version has no frozen adapter", got=version)
    return object_response(
        request, service.objects, frozen.sha256, "application/octet-stream", known_bytes=frozen.size_bytes
    )


def _version(service: Service, version: str) -> AdapterVersionRow:
    with service.database.read() as session:
        return get_version(session, version)


@router.post("/runs/{run_id}:{verb}", responses=problems(404, 409))
def post_run_verb(run_id: Identifier, verb: RunVerb, service: ServiceOf) -> RunStatus:
    change_run(service, run_id, verb)
    return _status(service, run_id)
