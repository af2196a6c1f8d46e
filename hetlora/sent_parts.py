"""Which parts of an adapter a device sends, as a plan's `Adaptation` asks for them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hetlora.messages.device import Adaptation, UploadPrecision

# Places of a module's factors in `factor_keys`; each is also the axis along which the factor has its ranks.
LORA_A: Final = 0
LORA_B: Final = 1


def sends_whole_ranks(adaptation: Adaptation) -> bool:
    """Whether factors are sent whole, so that they may be cut to a lower rank before."""
    return (
        adaptation.trained != "core" and adaptation.selected_ranks is None and adaptation.upload_density == 1
    )


def is_plain(adaptation: Adaptation) -> bool:
    """Whether an update is the adapter itself, in a file as a plan's."""
    whole = sends_whole_ranks(adaptation) and len(sent_places(adaptation)) == 2
    return whole and adaptation.upload_precision == "float32"


def at_precision(adaptation: Adaptation, precision: UploadPrecision, *, same_coordinates: bool) -> Adaptation:
    """The adaptation whose numbers travel in a precision, with error feedback where it has a meaning.

    Args:
        same_coordinates: what a number of a factor is now it is in the next round, too. Ranks that are drawn
            for each round, selected ones and sparse entries are others then in any case.
    """
    if precision == "float32":
        return adaptation
    fed_back = same_coordinates and sends_whole_ranks(adaptation) and adaptation.ranks is None
    return adaptation.model_copy(update={"upload_precision": precision, "error_feedback": fed_back})


def sent_places(adaptation: Adaptation) -> tuple[int, ...]:
    """Which factors a device sends back: LORA_A, LORA_B, both, or none where cores are trained."""
    kept = {"lora_A": (LORA_A,), "lora_B": (LORA_B,), "both": (LORA_A, LORA_B), "core": ()}
    return (LORA_A,) if adaptation.private_lora_B else kept[adaptation.trained]


def ranks_at(ranks: NDArray[np.generic], place: int) -> tuple[NDArray[np.generic] | slice, ...]:
    """Where these ranks are in a factor."""
    return (ranks, slice(None)) if place == LORA_A else (slice(None), ranks)
