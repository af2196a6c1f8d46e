"""Which operator calls: keys and roles are checked, and writes noted, before a body is read."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPBearer
from starlette.types import Message, Receive, Scope, Send

from aggregator_service.api.errors import ALWAYS, problems
from aggregator_service.api.route import OpenRoute, service_of
from aggregator_service.observability.log_context import facts, note
from aggregator_service.operators.audit import Entry, close_entry, open_entry
from aggregator_service.operators.idempotency import IdempotencyKey
from aggregator_service.operators.operators import Operator, authenticate
from hetlora.messages.operators import OperatorRole

PREFIX: Final = "/management/v1"
READS: Final = frozenset({"GET", "HEAD"})
# One device's update, which tells of its data: nobody reads it unnoted, nor merely to look around.
UPDATES: Final = frozenset({f"{PREFIX}/quarantine/{{assignment_id}}/content"})


class OperatorRoute(OpenRoute):
    """A route of operators, who bring a bearer token. Every write, and every read of
    `UPDATES`, leaves an entry in the audit log.
    """

    async def check_caller(self, request: Request) -> None:
        service = service_of(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token if scheme.lower() == "bearer" else ""
        operator = await run_in_threadpool(authenticate, service, token)
        request.state.operator = operator
        note(operator=operator.key_id)
        if request.method not in READS or self.path in UPDATES:
            request.state.audit = await run_in_threadpool(
                open_entry,
                service,
                operator,
                action=f"{request.method} {self.path}",
                subject=":".join(map(str, request.path_params.values())),
                request_id=facts()["request_id"],
                source=request.client.host if request.client else None,
            )
        operator.must_be(role_for(request.method, self.path))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and note the answer's status before it leaves."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                await _note(scope, message["status"])
            await send(message)

        try:
            await super().handle(scope, receive, noting)
        except Exception:  # answered further out, with 500
            await _note(scope, 500)
            raise


def role_for(method: str, path: str) -> OperatorRole:
    """The role that a request needs. Whoever makes keys or tokens could make themselves anything: admins."""
    if path.startswith((f"{PREFIX}/keys", f"{PREFIX}/audit")):
        return OperatorRole.ADMIN
    if method in READS and path not in UPDATES:
        return OperatorRole.VIEWER
    makes_tokens = path.startswith(f"{PREFIX}/populations") and "/aliases/" not in path
    return OperatorRole.ADMIN if makes_tokens else OperatorRole.OPERATOR


async def _note(scope: Scope, status: int) -> None:
    entry = scope.get("state", {}).pop("audit", None)
    if entry is not None:
        await run_in_threadpool(close_entry, scope["app"].state.service, entry, status)


def operator_router() -> APIRouter:
    """Routes of `/management/v1`, all behind a key."""
    # The dependency only announces the scheme in OpenAPI; `OperatorRoute` checks the token.
    scheme = Depends(HTTPBearer(auto_error=False, description="An operator's token"))
    return APIRouter(
        prefix=PREFIX,
        tags=["operators"],
        route_class=OperatorRoute,
        dependencies=[scheme],
        responses=problems(401, 403, *ALWAYS),
    )


async def _entry_of(request: Request) -> Entry:
    entry = request.state.audit
    assert isinstance(entry, Entry)
    return entry


async def _operator_of(request: Request) -> Operator:
    operator = request.state.operator
    assert isinstance(operator, Operator)
    return operator


async def _idempotency_key(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[!-~]{1,128}$",
            description="The same key and body within a day answer what the first request made.",
        ),
    ] = None,
) -> IdempotencyKey | None:
    operator = await _operator_of(request)
    return None if idempotency_key is None else IdempotencyKey(operator, idempotency_key)


AuditEntryOf = Annotated[Entry, Depends(_entry_of)]  # for handlers that know a better subject than the path
OperatorOf = Annotated[Operator, Depends(_operator_of)]  # who asks
IdempotencyKeyOf = Annotated[IdempotencyKey | None, Depends(_idempotency_key)]
