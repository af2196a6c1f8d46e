"""Which parts of an adapter a device sends, as a plan's `Adaptation` asks for them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hetlora.messages.device import Adaptation

# Places of a module's factors in `factor_keys`; each is also the axis along which the factor has its ranks.
LORA_A: Final = 0
LORA_B: Final = 1


def sends_whole_ranks(adaptation: Adaptation) -> bool:
    """Whether factors are sent whole, so that they may be cut to a lower rank before."""
    return (
        adaptation.trained != "core" and adaptation.selected_ranks is None and adaptation.upload_density == 1
    )


def sent_places(adaptation: Adaptation) -> tuple[int, ...]:
    """Which factors a device sends back: LORA_A, LORA_B, both, or none where cores are trained."""
    kept = {"lora_A": (LORA_A,), "lora_B": (LORA_B,), "both": (LORA_A, LORA_B), "core": ()}
    return (LORA_A,) if adaptation.private_lora_B else kept[adaptation.trained]


def ranks_at(ranks: NDArray[np.generic], place: int) -> tuple[NDArray[np.generic] | slice, ...]:
    """Where these ranks are in a factor."""
    return (ranks, slice(None)) if place == LORA_A else (slice(None), ranks)
