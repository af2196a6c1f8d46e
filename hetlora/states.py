"""The states of devices, assignments, rounds, runs, adapter versions, evaluations, quarantined updates and
rollouts, and their legal moves.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class DeviceState(StrEnum):
    """A registered machine's standing with the operator."""

    PREAUTHORIZED = "preauthorized"
    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SUSPENDED = "suspended"
    DECOMMISSIONED = "decommissioned"


class AssignmentState(StrEnum):
    """Work given to one device in one round."""

    OFFERED = "offered"
    DOWNLOADING = "downloading"
    TRAINING = "training"
    UPLOADING = "uploading"
    SUBMITTED = "submitted"
    ACCEPTED = "accepted"
    DISCARDED = "discarded"
    FAILED = "failed"
    EXPIRED = "expired"
    ABORTED = "aborted"


class RoundState(StrEnum):
    """One aggregation cycle."""

    SELECTING = "selecting"
    COLLECTING = "collecting"
    AGGREGATING = "aggregating"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


class RunState(StrEnum):
    """One execution of a task; finished comes in three kinds."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


class AdapterVersionState(StrEnum):
    """A committed global adapter on its way to the fleet."""

    CANDIDATE = "candidate"
    APPROVED = "approved"
    CANARY = "canary"
    ROLLED_OUT = "rolled_out"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"


class EvaluationState(StrEnum):
    """The evaluation of one adapter version on devices."""

    OPEN = "open"
    CLOSED = "closed"


class EvaluationAssignmentState(StrEnum):
    """One device's part in an evaluation; an end has the word of `AssignmentState`."""

    OFFERED = "offered"
    STARTED = "started"
    ACCEPTED = "accepted"
    FAILED = "failed"
    EXPIRED = "expired"
    ABORTED = "aborted"


class QuarantineState(StrEnum):
    """An update that a screen took out of its round; it comes back into none."""

    HELD = "held"  # counts against its device until an operator releases it
    RELEASED = "released"
    CONFIRMED = "confirmed"


class RolloutState(StrEnum):
    """An adapter version on its way to a group; finished comes in three kinds."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"
    ROLLED_BACK = "rolled_back"


class RolloutDeviceState(StrEnum):
    """What a rollout asked of one device."""

    OFFERED = "offered"
    STARTED = "started"
    ADOPTED = "adopted"
    KEPT = "kept"  # the adapter that was in use
    FAILED = "failed"
    ABORTED = "aborted"
    RECALLED = "recalled"  # offered the version before
    REVERTED = "reverted"


# Work that a device has; a part of it that has begun.
LIVE_ASSIGNMENT: Final = frozenset(
    {
        AssignmentState.OFFERED,
        AssignmentState.DOWNLOADING,
        AssignmentState.TRAINING,
        AssignmentState.UPLOADING,
        AssignmentState.SUBMITTED,
    }
)
STARTED_ASSIGNMENT: Final = frozenset(
    {AssignmentState.DOWNLOADING, AssignmentState.TRAINING, AssignmentState.UPLOADING}
)
LIVE_EVALUATION: Final = frozenset({EvaluationAssignmentState.OFFERED, EvaluationAssignmentState.STARTED})
# What a device may be at that a rollout asked.
LIVE_ADOPTION: Final = frozenset(
    {RolloutDeviceState.OFFERED, RolloutDeviceState.STARTED, RolloutDeviceState.RECALLED}
)
# Rounds that take updates; with those that are being aggregated, all that have not ended.
OPEN_ROUND: Final = frozenset({RoundState.SELECTING, RoundState.COLLECTING})
GOING_ON_ROUND: Final = OPEN_ROUND | {RoundState.AGGREGATING}

_D, _A, _R, _S, _V = DeviceState, AssignmentState, RoundState, RunState, AdapterVersionState
_E, _Q = EvaluationAssignmentState, QuarantineState
_O, _F = RolloutState, RolloutDeviceState
_ENDED_EARLY = {_A.FAILED, _A.EXPIRED, _A.ABORTED}

# One table per machine: members of two machines can be equal as strings ("accepted").
# A state that is not a key is final.
LEGAL_MOVES: Final[dict[type[StrEnum], dict[str, set[str]]]] = {
    DeviceState: {
        _D.PREAUTHORIZED: {_D.ACCEPTED, _D.REJECTED, _D.DECOMMISSIONED},
        _D.PENDING: {_D.ACCEPTED, _D.REJECTED, _D.DECOMMISSIONED},
        _D.ACCEPTED: {_D.SUSPENDED, _D.DECOMMISSIONED},
        _D.REJECTED: {_D.DECOMMISSIONED},
        _D.SUSPENDED: {_D.ACCEPTED, _D.DECOMMISSIONED},
    },
    AssignmentState: {
        _A.OFFERED: {_A.DOWNLOADING, *_ENDED_EARLY},
        _A.DOWNLOADING: {_A.TRAINING, *_ENDED_EARLY},
        _A.TRAINING: {_A.UPLOADING, *_ENDED_EARLY},
        _A.UPLOADING: {_A.SUBMITTED, *_ENDED_EARLY},
        _A.SUBMITTED: {_A.ACCEPTED, _A.DISCARDED, *_ENDED_EARLY},
        _A.ACCEPTED: {_A.DISCARDED},  # the stored update can no longer be read, or a screen took it out
    },
    RoundState: {
        _R.SELECTING: {_R.COLLECTING, _R.AGGREGATING, _R.ABANDONED},
        _R.COLLECTING: {_R.AGGREGATING, _R.ABANDONED},
        _R.AGGREGATING: {_R.COMMITTED, _R.COLLECTING, _R.ABANDONED},
    },
    RunState: {
        _S.DRAFT: {_S.RUNNING, _S.STOPPED},
        _S.RUNNING: {_S.PAUSED, _S.COMPLETED, _S.FAILED, _S.STOPPED},
        _S.PAUSED: {_S.RUNNING, _S.COMPLETED, _S.FAILED, _S.STOPPED},
    },
    AdapterVersionState: {
        _V.CANDIDATE: {_V.APPROVED, _V.SUPERSEDED, _V.ROLLED_BACK},
        _V.APPROVED: {_V.CANARY, _V.SUPERSEDED, _V.ROLLED_BACK},
        _V.CANARY: {_V.ROLLED_OUT, _V.SUPERSEDED, _V.ROLLED_BACK},
        _V.ROLLED_OUT: {_V.SUPERSEDED, _V.ROLLED_BACK},
        _V.SUPERSEDED: {_V.ROLLED_OUT},  # the one after it was rolled back
    },
    EvaluationState: {EvaluationState.OPEN: {EvaluationState.CLOSED}},
    EvaluationAssignmentState: {
        _E.OFFERED: {_E.STARTED, _E.FAILED, _E.EXPIRED, _E.ABORTED},
        _E.STARTED: {_E.ACCEPTED, _E.FAILED, _E.EXPIRED, _E.ABORTED},
    },
    QuarantineState: {
        _Q.HELD: {_Q.RELEASED, _Q.CONFIRMED},
        _Q.CONFIRMED: {_Q.RELEASED},
    },
    RolloutState: {
        _O.DRAFT: {_O.RUNNING, _O.STOPPED},
        _O.RUNNING: {_O.PAUSED, _O.COMPLETED, _O.STOPPED, _O.ROLLED_BACK},
        _O.PAUSED: {_O.RUNNING, _O.STOPPED, _O.ROLLED_BACK},
        _O.COMPLETED: {_O.ROLLED_BACK},
        _O.STOPPED: {_O.ROLLED_BACK},
    },
    RolloutDeviceState: {
        _F.OFFERED: {_F.STARTED, _F.FAILED, _F.ABORTED},
        # Given back for a while; or the device may have it in use, which it had no time to tell.
        _F.STARTED: {_F.ADOPTED, _F.KEPT, _F.FAILED, _F.OFFERED, _F.RECALLED},
        _F.ADOPTED: {_F.RECALLED},
        _F.RECALLED: {_F.REVERTED},
    },
}


def is_legal(old: StrEnum, new: StrEnum) -> bool:
    """Whether the state machine allows the move from `old` to `new`."""
    return type(old) is type(new) and new in LEGAL_MOVES[type(old)].get(old, set())


def is_final(state: StrEnum) -> bool:
    """Whether the state machine allows no further move."""
    return state not in LEGAL_MOVES[type(state)]
