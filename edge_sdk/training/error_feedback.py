"""Error feedback (Seide et al. 2014; Karimireddy et al., arXiv 1901.09847): what is rounded off is owed.

With x_t the factors that were received in round t, y_t what training made of them, and e_t what rounding has
left out so far, the device sends Q(y_t + e_t - x_t). The service reads z_t = x_t + Q(...) of it. What stays:

    e_{t+1} = y_t + e_t - z_t.

Summed up, sum_t (y_t - x_t) - sum_t (z_t - x_t) = e_{T+1}: what the service saw is what was trained, but for
half a step of the last rounding, however many rounds there were (docs/adr/0019-compressed-updates.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_sdk.training.fitting import fitted
from hetlora.adapter import Adapter, AdapterSpec, Tensor
from hetlora.errors import SpecMismatch
from hetlora.messages.device import Adaptation
from hetlora.partial import contract, expand
from hetlora.sent_parts import sent_places
from hetlora.stored_tensors import Tensors
from hetlora.tensors import factor_keys, from_tensors, to_tensors

# What rounding has left out, by the PEFT key of its factor; at the rank that the factor had when it was sent.
RoundingErrors = Mapping[str, Tensor]


def contract_with_feedback(
    adapter: Adapter, adaptation: Adaptation, received: Adapter, errors: RoundingErrors
) -> tuple[bytes, dict[str, Tensor]]:
    """The update of an adapter and of what rounding left out before, and what it has left out now.

    Errors at another rank count with their leading ranks; those of a factor that is not sent stay.

    Raises:
        RankOutOfRange, NonFiniteValues: see `contract`; or what is sent passes float32.
    """
    whole = to_tensors(adapter)
    owed = {
        key: whole[key].astype(np.float64) + fitted(errors.get(key, whole[key][:0, :0]), whole[key].shape)
        for name in adapter.factors
        for key in (factor_keys(name)[place] for place in sent_places(adaptation))
    }
    target = from_tensors(
        adapter.spec, {**whole, **{key: own.astype(np.float32) for key, own in owed.items()}}
    )
    data = contract(target, adaptation, received)
    # What the service reads, bit for bit: so the rounding of its sum is among the errors, too.
    seen = to_tensors(expand(data, adapter.spec, adaptation, received))
    return data, {**errors, **{key: (own - seen[key]).astype(np.float32) for key, own in owed.items()}}


def checked_errors(kept: Tensors, spec: AdapterSpec) -> dict[str, Tensor]:
    """Errors that were kept in an earlier round, as float32.

    Raises:
        SpecMismatch: they are of another model.
    """
    widths = _widths(spec)
    for key, tensor in kept.items():
        axis, width = widths.get(key, (0, -1))
        if tensor.ndim != 2 or tensor.shape[axis] != width:
            raise SpecMismatch(f"shape of {key}", got=tensor.shape, expected="a factor of this model")
    return {key: np.asarray(tensor).astype(np.float32) for key, tensor in kept.items()}


def _widths(spec: AdapterSpec) -> dict[str, tuple[int, int]]:
    """Along which axis each factor has its features, and how many."""
    widths = {}
    for module in spec.modules:
        key_A, key_B = factor_keys(module.name)
        widths[key_A], widths[key_B] = (1, module.in_features), (0, module.out_features)
    return widths
