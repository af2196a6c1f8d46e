"""What an app may be told while a visit goes on, for a progress bar or a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_sdk.adapters.index import Comparison
from edge_sdk.planning.planner import RankChoice
from hetlora.messages.device import Offer, Receipt, Report
from hetlora.messages.evaluation import EvaluationReport


@dataclass(frozen=True, slots=True)
class CheckedIn:
    """The service answered with an offer, or with the reason why there is none."""

    offer: Offer | None
    reason: str


@dataclass(frozen=True, slots=True)
class AwaitingApproval:
    """The device is enrolled, and an operator has to accept it before it may take part."""

    device_id: str


@dataclass(frozen=True, slots=True)
class RankChosen:
    """The planner found the rank that this device can afford, with the run's own bundle or this variant."""

    choice: RankChoice
    variant: str | None = None  # its digest


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file arrived and was verified."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer step; `step` counts from 1."""

    step: int
    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class HeldOutScored:
    """What the device holds out was scored, before the first step of a round or after the last."""

    when: Literal["before", "after"]
    report: EvaluationReport


@dataclass(frozen=True, slots=True)
class RankPruned:
    """Self-pruning cut the adapter."""

    old_rank: int
    new_rank: int


@dataclass(frozen=True, slots=True)
class AwaitingOthers:
    """In a round with masks: what the others of the cohort are waited for, in words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The update is at the service."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """The service took the report and said what became of the update."""

    report: Report
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The service took the report of an evaluation and said what became of it."""

    report: EvaluationReport
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Adopted:
    """A new adapter is in use; models that are open stay as they were opened."""

    comparison: Comparison


@dataclass(frozen=True, slots=True)
class NotAdopted:
    """A new adapter is not taken into use, as it is worse than the one that is, or cannot be scored."""

    comparison: Comparison


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The assignment went back to the service, with a stable code."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """Training goes on from a checkpoint, after this step."""

    step: int


@dataclass(frozen=True, slots=True)
class GivenUp:
    """An assignment that was under way is no longer this device's; what was trained for it is dropped."""

    assignment_id: str


Event = (
    AwaitingApproval
    | AwaitingOthers
    | CheckedIn
    | RankChosen
    | Downloaded
    | StepDone
    | HeldOutScored
    | RankPruned
    | Uploaded
    | Submitted
    | Evaluated
    | Adopted
    | NotAdopted
    | GivenBack
    | Resumed
    | GivenUp
)
