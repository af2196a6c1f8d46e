"""How far a device is with an assignment, and which moves that may take, in one table."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Progress(StrEnum):
    """What of an assignment is on the device's disk; the service has states of its own (`hetlora.states`)."""

    OFFERED = "offered"  # the offer
    TAKEN = "taken"  # plan and adapter, too
    TRAINING = "training"  # a checkpoint of the training, too
    TRAINED = "trained"  # the update alone, which is to be delivered
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"  # given back, or ended by the service


_P = Progress
# From each state on: back to the offer where what is stored cannot be used, or the end.
_ALWAYS = {_P.OFFERED, _P.GIVEN_UP}
# A state that is not a key is final: its assignment gives way to the next offer.
LEGAL_MOVES: Final[dict[Progress, set[Progress]]] = {
    _P.OFFERED: {_P.TAKEN, *_ALWAYS},
    # Trained before a checkpoint was due; and delivered without having been stored, on a full disk.
    _P.TAKEN: {_P.TRAINING, _P.TRAINED, _P.DELIVERED, *_ALWAYS},
    _P.TRAINING: {_P.TRAINING, _P.TRAINED, _P.DELIVERED, *_ALWAYS},
    _P.TRAINED: {_P.DELIVERED, *_ALWAYS},
}


def is_legal(old: Progress, new: Progress) -> bool:
    """Whether an assignment may go from `old` to `new`."""
    return new in LEGAL_MOVES.get(old, set())


def is_over(progress: Progress) -> bool:
    """Whether nothing is left to do for an assignment."""
    return progress not in LEGAL_MOVES
