"""Updates that carry part of an adapter, as a plan's `Adaptation` asks for it.

The keys of their tensors are those of `hetlora.partial_tensors`; docs/protocol.md has the whole format.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import Adapter, AdapterSpec, Tensor
from hetlora.errors import RankOutOfRange, SpecMismatch
from hetlora.expansion import cores_within, expand_lazily
from hetlora.lazy_adapter import lazily
from hetlora.messages.device import Adaptation
from hetlora.partial_tensors import cores_to_bytes, largest_of, ranks_key
from hetlora.rounding import rounded
from hetlora.selection import moved_most
from hetlora.sent_parts import ranks_at, sends_whole_ranks, sent_places
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import check_keys, factor_keys, to_tensors


def expand(data: bytes, spec: AdapterSpec, adaptation: Adaptation, received: Adapter) -> Adapter:
    """The whole adapter that an update stands for: what it leaves out is as in `received`.

    Frozen and private factors and ranks that were not selected are those received. Sparse entries are
    changes, added to it, and so is all that comes in another precision than float32. Factors sent whole may
    be of lower rank than received, as after self-pruning; one that was not sent is then cut to it. Cores come
    as lora_B R beside lora_A; `cores_from_bytes` gives them alone.

    Raises:
        MalformedTensors, NonFiniteValues: see `read_partial`.
        SpecMismatch: tensors of other names or shapes, or more entries than `adaptation` allows.
        RankOutOfRange: a rank that was not received, or more ranks than `adaptation` allows.
    """
    if received.spec != spec:
        raise SpecMismatch("the received adapter is not of the specification")
    return expand_lazily(data, adaptation, lazily(received)).whole()


def contract(
    adapter: Adapter, adaptation: Adaptation, received: Adapter, cores: Mapping[str, Tensor] | None = None
) -> bytes:
    """The update of which `expand` makes the adapter: what `adaptation` asks for, and no more.

    Args:
        cores: (rank, rank) by module name, where they are what was trained; they are then all that is sent.

    Raises:
        RankOutOfRange: selected ranks or sparse entries of an adapter whose ranks are not those received; or
            a change of one that has higher ranks.
        SpecMismatch: cores are asked for, and not those of all modules are given.
        NonFiniteValues: see `rounded`.
    """
    if adaptation.trained == "core":
        check_keys(cores or {}, adapter.spec.by_name)
        return cores_to_bytes(cores or {})
    sent, precision = _sent(adapter, adaptation), adaptation.upload_precision
    if sends_whole_ranks(adaptation) and precision == "float32":
        return tensors_to_bytes(sent)
    changes = _changes(adapter, adaptation, received)
    if sends_whole_ranks(adaptation):
        return tensors_to_bytes(rounded(changes, precision))
    if adapter.ranks != received.ranks:
        raise RankOutOfRange("ranks of a change", got=adapter.ranks, expected=received.ranks)
    if adaptation.selected_ranks is None:
        return tensors_to_bytes(rounded(largest_of(changes, adaptation.upload_density), precision))
    if precision != "float32":
        sent = changes
    chosen: dict[str, NDArray[np.generic]] = {}
    for name, ranks in moved_most(adapter, received, adaptation.selected_ranks).items():
        chosen[ranks_key(name)] = ranks
        for place in sent_places(adaptation):
            key = factor_keys(name)[place]
            chosen[key] = sent[key][ranks_at(ranks, place)]
    return tensors_to_bytes(rounded(chosen, precision))


def _changes(adapter: Adapter, adaptation: Adaptation, received: Adapter) -> dict[str, Tensor]:
    """What the factors that are sent changed by, of those received as many ranks as they have."""
    before = _sent(received, adaptation)
    changes = {}
    for key, tensor in _sent(adapter, adaptation).items():
        if any(now > then for now, then in zip(tensor.shape, before[key].shape, strict=True)):
            raise RankOutOfRange("ranks of a change", got=adapter.ranks, expected=received.ranks)
        with np.errstate(over="ignore"):
            changes[key] = tensor - before[key][tuple(map(slice, tensor.shape))]
    return changes


def _sent(adapter: Adapter, adaptation: Adaptation) -> dict[str, Tensor]:
    tensors = to_tensors(adapter)
    places = sent_places(adaptation)
    return {
        key: tensors[key]
        for name in adapter.factors
        for key in (factor_keys(name)[place] for place in places)
    }


def with_cores(received: Adapter, cores: Mapping[str, Tensor]) -> Adapter:
    """The adapter with each core multiplied into its lora_B; itself where there are none.

    Raises:
        SpecMismatch: modules have several ranks.
        NonFiniteValues: a product passes float32.
    """
    return cores_within(lazily(received), cores).whole() if cores else received
