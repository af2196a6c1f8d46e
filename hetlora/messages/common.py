"""What the messages of devices and operators share, and the manifest with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Generic, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from hetlora.digest import Sha256
from hetlora.errors import (
    HetloraError,
    ProtocolUnsupported,
    RefusedError,
    ServiceFailed,
    ServiceUnreachable,
    error_classes,
    faults_in_words,
)

# All that this hetlora speaks, ascending: as a service with each device in the device's, as a device in the
# newest that the service has too (docs/protocol.md, "Versions").
PROTOCOL_VERSIONS: Final = (1,)
PROTOCOL_VERSION: Final = PROTOCOL_VERSIONS[-1]
# Beyond this, readers of JSON lose digits (RFC 7493, section 2.2), and soon after databases refuse.
MAX_INTEGER: Final = 2**53 - 1
# No lease, window or wait is longer: clocks and calendars overflow long after it.
YEAR_SECONDS: Final = 365 * 24 * 3600

# PostgreSQL keeps no NUL in a text, and nothing that is UTF-8 has half of a surrogate pair.
_NO_TEXT: Final = re.compile(r"[\0\ud800-\udfff]")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
# Strict: "2" and true are no numbers, though Python would take them for 2 and 1.
Integer = Annotated[int, Field(strict=True)]
# A field with a bound of its own states them all: of two of one kind pydantic would keep the one here.
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_INTEGER)]
PositiveCount = Annotated[int, Field(strict=True, ge=1, le=MAX_INTEGER)]
# Of a file's schema. Literal[1] would take true and 1.0, which equal 1, however strict it is.
FirstVersion = Annotated[int, Field(strict=True, ge=1, le=1)]


def _within_the_calendar(moment: datetime) -> datetime:
    try:
        moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is before the year 1 or after the year 9999 in UTC") from error
    return moment


# Aware: a time without its zone means another moment on each machine.
Timestamp = Annotated[AwareDatetime, AfterValidator(_within_the_calendar)]
Item = TypeVar("Item", bound=BaseModel)
Answer = TypeVar("Answer", bound=BaseModel)


class Message(BaseModel):
    """An immutable message with no room for unknown fields, NaN, infinity, or what no text may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _texts_can_be_kept(self) -> Self:
        for name, value in self:
            if any(_NO_TEXT.search(text) for text in _texts(value)):
                raise ValueError(f"{name} holds a NUL, or half of a surrogate pair")
        return self


def _texts(value: object) -> Iterator[str]:
    """The texts of a field; those of a message in it were looked at when that was made."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts((*value.keys(), *value.values()))
    elif isinstance(value, (tuple, list, set, frozenset)):
        for item in value:
            yield from _texts(item)


def is_empty(listed: tuple[object, ...]) -> bool:
    """Whether a field of a message has nothing to say, and is left out."""
    return not listed


def is_unset(value: object) -> bool:
    """Whether a field of a message was not given, and is left out."""
    return value is None


class ObjectRef(Message):
    """Bytes by what they must be: an object of `/device/v1/objects/{sha256}`, or a file of a bundle."""

    sha256: Sha256
    size_bytes: Count


class Page(Message, Generic[Item]):
    """One page of a listing; `next_cursor` is absent on the last."""

    items: tuple[Item, ...]
    next_cursor: str | None = None


class Problem(Message):
    """An RFC 9457 problem document: the one shape of every error answer.

    Unlike other messages it may carry unknown fields, which are ignored (section 3.2).
    """

    model_config = ConfigDict(extra="ignore")

    type: str
    title: str
    status: Integer
    detail: str
    code: str
    instance: str | None = None  # urn:hetlora:request:ID, the request that it is about
    got: str | None = None
    expected: str | None = None
    # Those that are spoken, with `protocol_unsupported`.
    protocol_versions: tuple[Count, ...] | None = Field(default=None, exclude_if=lambda told: told is None)


def problem_of(error: HetloraError) -> Problem:
    """The problem document that tells of an error."""
    return Problem(
        type=f"urn:hetlora:error:{error.code}",
        title=(type(error).__doc__ or error.code).splitlines()[0],
        status=error.status,
        detail=error.what,
        code=error.code,
        got=error.got,
        expected=error.expected,
        protocol_versions=error.spoken if isinstance(error, ProtocolUnsupported) else None,
    )


def error_of(problem: Problem) -> HetloraError:
    """The error that a problem document tells of.

    A code that this version does not know becomes ServiceFailed, which may be asked again, or RefusedError,
    which may not, as the status says.
    """
    unknown = ServiceFailed if problem.status >= 500 else RefusedError
    kind = error_classes().get(problem.code, unknown)
    error = kind(problem.detail, got=problem.got, expected=problem.expected)
    if isinstance(error, ProtocolUnsupported):
        error.spoken = problem.protocol_versions or ()
    return error


def parse_answer(kind: type[Answer], body: bytes, *, service_url: str) -> Answer:
    """Read the body of a success.

    Raises:
        ServiceUnreachable: it is no such message. Whoever answered, a captive portal or a proxy perhaps, is
            no service of this protocol; the service itself may still be there later.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise no_service(
            faults_in_words(error.errors()), expected=f"{kind.__name__} from {service_url}"
        ) from error


def error_of_answer(status: int, body: bytes, *, service_url: str) -> HetloraError:
    """The error that an answer without success tells of; ServiceUnreachable if it is no problem document."""
    try:
        return error_of(Problem.model_validate_json(body))
    except ValidationError:
        return no_service(
            f"status {status} without a problem document", expected=f"a hetlora service at {service_url}"
        )


def no_service(got: object, *, expected: str) -> ServiceUnreachable:
    """What to raise of an answer that no service of this protocol gives."""
    return ServiceUnreachable("the answer is not one of a hetlora service", got=got, expected=expected)
