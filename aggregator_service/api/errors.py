"""One shape for every error: RFC 9457 problem documents."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from aggregator_service.observability.log_context import facts
from aggregator_service.storage.database import out_of_order, words_of
from aggregator_service.storage.passing import PASSING
from hetlora.errors import (
    BodyTooLarge,
    HetloraError,
    InputError,
    MalformedMessage,
    NotFound,
    TooManyRequests,
    UnavailableError,
    faults_in_words,
)
from hetlora.messages.common import Problem, problem_of

log = logging.getLogger(__name__)

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]  # of one kind of failure

# What any route may answer besides: a compressed body, a body or parameter that its schema refuses, a fault
# of ours, a database that is away. 422 also keeps FastAPI from announcing its own shape of validation errors.
ALWAYS: Final = (415, 422, 500, 503)
AWAY_SECONDS: Final = 2.0  # after which whoever met something away may ask again


def problems(*statuses: int) -> dict[int | str, dict[str, object]]:
    """For OpenAPI: the statuses under which a route answers a problem document."""
    document = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {status: {"description": _phrase(status), "content": document} for status in statuses}


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Checksum Mismatch"  # tus's own, 460


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem document as an answer, which names the request that it is about."""
    request_id = facts().get("request_id")
    if request_id is not None:
        problem = problem.model_copy(update={"instance": f"urn:hetlora:request:{request_id}"})
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=problem.status,
        headers=dict(headers or {}),
        media_type="application/problem+json",
    )


def _headers(request: Request, error: HetloraError) -> dict[str, str]:
    """What a refusal needs beside its body."""
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer, Signature"  # RFC 9110 asks every 401 for a scheme
    wait_seconds = AWAY_SECONDS if error.status == 503 else None
    if isinstance(error, TooManyRequests):
        wait_seconds = error.retry_after_seconds
    if wait_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait_seconds)))
    if "content-length" in request.headers or "transfer-encoding" in request.headers:
        # A refusal may come before the body was read: a closed connection does not take the rest.
        headers["Connection"] = "close"
    return headers


async def _known(request: Request, error: HetloraError) -> Response:
    if error.status >= 500:
        log.error("path=%s code=%s error=%s", request.url.path, error.code, error)
    return problem_response(problem_of(error), _headers(request, error))


async def _refused_by_schema(request: Request, error: RequestValidationError) -> Response:
    faults = faults_in_words(error.errors())
    return problem_response(problem_of(MalformedMessage("message does not fit its schema", got=faults)))


async def _from_framework(request: Request, error: HTTPException) -> Response:
    kinds = {400: MalformedMessage, 404: NotFound, 405: NotFound, 413: BodyTooLarge}
    kind: type[HetloraError] = kinds.get(error.status_code, InputError)
    told = kind(error.detail, got=f"{request.method} {request.url.path}")
    # 400 is what the framework says of a body that is no JSON, which the schema would refuse as well.
    status = told.status if error.status_code == 400 else error.status_code
    problem = problem_of(told).model_copy(update={"status": status})
    return problem_response(problem, error.headers or {})


async def _database_out_of_order(request: Request, error: SQLAlchemyError) -> Response:
    if not out_of_order(error):
        raise error
    return await _known(request, UnavailableError("the database does not answer now", got=words_of(error)))


async def _written_twice(request: Request, error: IntegrityError) -> Response:
    # Two that looked before either wrote: who asks again finds what the other wrote.
    return await _known(request, UnavailableError("somebody else wrote the same at this moment"))


async def _refused_by_database(request: Request, error: DataError) -> Response:
    # PostgreSQL refuses what SQLite would keep or find nothing under: NUL in a path, a cursor of letters.
    log.warning("path=%s error=%s", request.url.path, type(error.orig).__name__)
    return await _known(request, MalformedMessage("a value that the database cannot hold"))


async def _disk_out_of_order(request: Request, error: OSError) -> Response:
    if error.errno not in PASSING:
        raise error
    return await _known(request, UnavailableError("the service cannot store this now", got=error.strerror))


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return problem_response(problem_of(MalformedMessage("the body broke off")))


# Failures that are answered with a problem document; those that nobody foresaw are for `RequestContext`.
HANDLERS: Final[Mapping[int | type[Exception], Handler]] = {
    HetloraError: _known,
    RequestValidationError: _refused_by_schema,
    HTTPException: _from_framework,
    SQLAlchemyError: _database_out_of_order,
    IntegrityError: _written_twice,
    DataError: _refused_by_database,
    OSError: _disk_out_of_order,
    ClientDisconnect: _gone,
}
