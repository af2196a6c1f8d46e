"""What a visit came to, what the service may know of it, and when another is due."""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass
from typing import Final, Literal

from edge_sdk.planning.planner import RankChoice
from hetlora.errors import ConditionsUnmet, DataError, DiskFull, HetloraError
from hetlora.messages.device import Failure, Offer, Report
from hetlora.messages.evaluation import EvaluationReport
from hetlora.messages.rollouts import AdoptionReport
from hetlora.states import AssignmentState

# After which conditions that did not hold are looked at again.
NOT_ALLOWED_SECONDS: Final = 60.0
# After a failure that the service could not be told, so that it named no time: longer than the few seconds
# that it names by default, as what failed here would at once fail again.
DEFAULT_RETRY_SECONDS: Final = 60.0

Outcome = Literal["no_work", "not_allowed", "accepted", "discarded", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Visit:
    """What happened when a device visited the service; `offer.kind` tells what the work was.

    `outcome` is "no_work"; "not_allowed", where conditions did not hold, so that the service was not asked
    or an update waits for a network that costs nothing; "stopped", where the app asked for the end of it, so
    that a later visit goes on with the assignment; or what became of the assignment: "accepted";
    "discarded", when the service had no more use for the update, as `reason` says; or "failed", when it was
    given back. `code` is the stable code of what went wrong, `error` the cause: beside "accepted" too, where
    the app's own `on_event` raised after the service had taken the update.
    """

    outcome: Outcome
    reason: str
    retry_after_seconds: float
    offer: Offer | None = None
    choice: RankChoice | None = None
    report: Report | None = None
    evaluation: EvaluationReport | None = None
    adoption: AdoptionReport | None = None
    code: str | None = None
    error: Exception | None = None


def outcome_of(state: AssignmentState) -> Outcome:
    """What the state in a receipt means to the device that asked."""
    match state:
        case AssignmentState.ACCEPTED:
            return "accepted"
        case AssignmentState.FAILED:
            return "failed"
        case _:  # expired, aborted or discarded: over without us
            return "discarded"


def failure_of(error: Exception) -> Failure:
    """What the service may know of an error: nothing that could quote an example, or a label of one."""
    if isinstance(error, DataError):
        return Failure(code=error.code, message=error.what)
    if isinstance(error, ConditionsUnmet):  # not why: when somebody uses their device is nobody's business
        return Failure(code=error.code, message=error.what)
    if isinstance(error, HetloraError):
        return Failure(code=error.code, message=str(error)[:1000])
    if isinstance(error, MemoryError):
        return Failure(code="out_of_memory", message="the device ran out of memory")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Failure(code=DiskFull.code, message="the device has no disk space left")
    return Failure(code="internal_error", message=type(error).__name__)


def places_of(error: Exception) -> str:
    """Where an error was raised, call by call, without what it says: that may quote an example."""
    return "".join(traceback.format_tb(error.__traceback__))
