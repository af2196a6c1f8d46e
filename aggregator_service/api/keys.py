"""`/management/v1`: keys of operators, and the audit log."""

from __future__ import annotations

from operator import eq, ge, lt
from typing import Annotated

from fastapi import Query, Request

from aggregator_service.api.errors import problems
from aggregator_service.api.operator_route import AuditEntryOf, IdempotencyKeyOf, operator_router
from aggregator_service.api.pages import DEFAULT_LIMIT, Cursor, Limit, page_of
from aggregator_service.api.route import ServiceOf
from aggregator_service.api.views import audit_entry
from aggregator_service.operators.audit import MAX_CHARACTERS
from aggregator_service.operators.operator_keys import create_key, key_status, revoke_key
from aggregator_service.storage.operator_tables import AuditRow, OperatorKeyRow
from hetlora.messages.common import Identifier, Page, Timestamp
from hetlora.messages.operators import AuditEntry, KeyCreate, KeyCreated, KeyHolder, KeyStatus

router = operator_router()


@router.post("/keys", status_code=201, responses=problems(408, 409, 413))
def post_key(
    message: KeyCreate, service: ServiceOf, entry: AuditEntryOf, asked: IdempotencyKeyOf
) -> KeyCreated:
    created = create_key(service, message, asked)
    entry.subject = created.key.key_id
    return created


@router.get("/keys")
def list_keys(service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT) -> Page[KeyStatus]:
    return page_of(service, OperatorKeyRow, OperatorKeyRow.id, key_status, cursor=cursor, limit=limit)


@router.post("/keys/{key_id}:revoke", responses=problems(404, 409))
def post_revoke(key_id: Identifier, service: ServiceOf) -> KeyStatus:
    return revoke_key(service, key_id)


@router.get("/whoami")
async def get_key_holder(request: Request) -> KeyHolder:
    """Whose key the request brought, so that a page need not offer what the key may not do."""
    operator = request.state.operator
    return KeyHolder(key_id=operator.key_id, name=operator.name, role=operator.role)


@router.get("/audit")
def list_audit(
    service: ServiceOf,
    key_id: Identifier | None = None,
    subject: Annotated[str | None, Query(max_length=MAX_CHARACTERS)] = None,
    since: Timestamp | None = None,
    until: Timestamp | None = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[AuditEntry]:
    """What operators asked to be written, newest first."""
    asked = (
        (eq, AuditRow.key_id, key_id),
        (eq, AuditRow.subject, subject),
        (ge, AuditRow.at, since),
        (lt, AuditRow.at, until),
    )
    conditions = [compare(column, value) for compare, column, value in asked if value is not None]
    return page_of(
        service,
        AuditRow,
        AuditRow.id,
        audit_entry,
        *conditions,
        cursor=cursor,
        limit=limit,
        newest_first=True,
    )
