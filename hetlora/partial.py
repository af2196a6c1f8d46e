"""Updates that carry part of an adapter, as a plan's `Adaptation` asks for it.

The keys of their tensors are those of `hetlora.partial_tensors`; docs/protocol.md has the whole format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, Tensor
from hetlora.errors import RankOutOfRange, SpecMismatch
from hetlora.messages.device import Adaptation
from hetlora.partial_tensors import (
    Tensors,
    core_key,
    dense,
    largest_of,
    partial_from_bytes,
    partial_to_bytes,
    positions_key,
    ranks_key,
    shaped,
)
from hetlora.selection import kept_entries, moved_most
from hetlora.tensors import adapter_from_bytes, check_keys, factor_keys, from_tensors, to_tensors

# Places of a module's factors in `factor_keys`; each is also the axis along which the factor has its ranks.
LORA_A: Final = 0
LORA_B: Final = 1


def expand(data: bytes, spec: AdapterSpec, adaptation: Adaptation, received: Adapter) -> Adapter:
    """The whole adapter that an update stands for: what it leaves out is as in `received`.

    Frozen and private factors and ranks that were not selected are those received; sparse entries are
    changes, added to it. Factors sent whole may be of lower rank than received, as after self-pruning; one
    that was not sent is then cut to it. Cores come as lora_B R beside lora_A; `cores_from_bytes` gives them
    alone.

    Raises:
        MalformedTensors, NonFiniteValues: see `partial_from_bytes`.
        SpecMismatch: tensors of other names or shapes, or more entries than `adaptation` allows.
        RankOutOfRange: a rank that was not received, or more ranks than `adaptation` allows.
    """
    if received.spec != spec:
        raise SpecMismatch("the received adapter is not of the specification")
    if adaptation.trained == "core":
        return with_cores(received, cores_from_bytes(data, spec, received.rank))
    if adaptation.upload_density < 1:
        return _plus_entries(received, partial_from_bytes(data), adaptation)
    if adaptation.selected_ranks is not None:
        return _with_ranks(received, partial_from_bytes(data), adaptation)
    places = sent_places(adaptation)
    if len(places) == 2:
        return adapter_from_bytes(data, spec)
    return _with_factor(received, partial_from_bytes(data), *places)


def contract(
    adapter: Adapter, adaptation: Adaptation, received: Adapter, cores: Mapping[str, Tensor] | None = None
) -> bytes:
    """The update of which `expand` makes the adapter: what `adaptation` asks for, and no more.

    Args:
        cores: (rank, rank) by module name, where they are what was trained; they are then all that is sent.

    Raises:
        RankOutOfRange: selected ranks or sparse entries of an adapter whose ranks are not those received.
        SpecMismatch: cores are asked for, and not those of all modules are given.
    """
    if adaptation.trained == "core":
        check_keys(cores or {}, adapter.spec.by_name)
        return cores_to_bytes(cores or {})
    sent = _sent(adapter, adaptation)
    if sends_whole_ranks(adaptation):
        return partial_to_bytes(sent)
    if adapter.ranks != received.ranks:
        raise RankOutOfRange("ranks of a change", got=adapter.ranks, expected=received.ranks)
    if adaptation.selected_ranks is None:
        before = _sent(received, adaptation)
        changes = {key: tensor - before[key] for key, tensor in sent.items()}
        return partial_to_bytes(largest_of(changes, adaptation.upload_density))
    chosen: dict[str, NDArray[np.generic]] = {}
    for name, ranks in moved_most(adapter, received, adaptation.selected_ranks).items():
        chosen[ranks_key(name)] = ranks
        for place in sent_places(adaptation):
            key = factor_keys(name)[place]
            chosen[key] = sent[key][_at(ranks, place)]
    return partial_to_bytes(chosen)


def sends_whole_ranks(adaptation: Adaptation) -> bool:
    """Whether factors are sent whole, so that they may be cut to a lower rank before."""
    return (
        adaptation.trained != "core" and adaptation.selected_ranks is None and adaptation.upload_density == 1
    )


def sent_places(adaptation: Adaptation) -> tuple[int, ...]:
    """Which factors a device sends back: LORA_A, LORA_B, both, or none where cores are trained."""
    kept = {"lora_A": (LORA_A,), "lora_B": (LORA_B,), "both": (LORA_A, LORA_B), "core": ()}
    return (LORA_A,) if adaptation.private_lora_B else kept[adaptation.trained]


def cores_to_bytes(cores: Mapping[str, Tensor]) -> bytes:
    """Write the cores of the modules, (rank, rank) by module name."""
    return partial_to_bytes({core_key(name): core for name, core in cores.items()})


def cores_from_bytes(data: bytes, spec: AdapterSpec, rank: int) -> dict[str, Tensor]:
    """The cores of all modules by name, float32 (rank, rank).

    Raises:
        MalformedTensors, NonFiniteValues: see `partial_from_bytes`.
        SpecMismatch: tensors of other names or shapes.
    """
    tensors = partial_from_bytes(data)
    check_keys(tensors, map(core_key, spec.by_name))
    return {name: shaped(tensors, core_key(name), (rank, rank)) for name in spec.by_name}


def _sent(adapter: Adapter, adaptation: Adaptation) -> dict[str, Tensor]:
    tensors = to_tensors(adapter)
    places = sent_places(adaptation)
    return {
        key: tensors[key]
        for name in adapter.factors
        for key in (factor_keys(name)[place] for place in places)
    }


def _at(ranks: NDArray[np.generic], place: int) -> tuple[NDArray[np.generic] | slice, ...]:
    return (ranks, slice(None)) if place == LORA_A else (slice(None), ranks)


def with_cores(received: Adapter, cores: Mapping[str, Tensor]) -> Adapter:
    """The adapter with each core multiplied into its lora_B; itself where there are none.

    Raises:
        SpecMismatch: modules have several ranks.
        NonFiniteValues: a product passes float32.
    """
    if not cores:
        return received
    if set(received.ranks.values()) != {received.rank}:
        raise SpecMismatch("cores stand between factors of one rank", got=sorted({*received.ranks.values()}))
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite then is refused by Adapter
        factors = {
            module.name: LoraFactors(own.lora_A, own.lora_B @ cores[module.name]) for module, own in received
        }
    return Adapter(received.spec, factors)


def _plus_entries(received: Adapter, tensors: Tensors, adaptation: Adaptation) -> Adapter:
    before = _sent(received, adaptation)
    check_keys(tensors, [*before, *map(positions_key, before)])
    allowed = kept_entries(adaptation.upload_density, sum(tensor.size for tensor in before.values()))
    came = sum(tensors[key].size for key in before)
    if came > allowed:
        raise SpecMismatch("too many entries in an update", got=came, expected=f"up to {allowed}")
    with np.errstate(over="ignore"):
        after = {key: own + dense(tensors, key, own.shape) for key, own in before.items()}
    return from_tensors(received.spec, {**to_tensors(received), **after})


def _with_ranks(received: Adapter, tensors: Tensors, adaptation: Adaptation) -> Adapter:
    before = _sent(received, adaptation)
    check_keys(tensors, [*before, *map(ranks_key, received.factors)])
    came = sum(tensors[ranks_key(name)].size for name in received.factors)
    if came > (adaptation.selected_ranks or 0):
        raise RankOutOfRange(
            "too many ranks in an update", got=came, expected=f"up to {adaptation.selected_ranks}"
        )
    after = {key: tensor.copy() for key, tensor in before.items()}
    for name, rank in received.ranks.items():
        ranks = tensors[ranks_key(name)]
        if ranks.size and ranks[-1] >= rank:
            raise RankOutOfRange(f"ranks of {name} in an update", got=ranks[-1], expected=f"below {rank}")
        for place in sent_places(adaptation):
            key = factor_keys(name)[place]
            at = _at(ranks, place)
            after[key][at] = shaped(tensors, key, after[key][at].shape)
    return from_tensors(received.spec, {**to_tensors(received), **after})


def _with_factor(received: Adapter, tensors: Tensors, place: int) -> Adapter:
    whole = to_tensors(received)
    check_keys(tensors, [factor_keys(name)[place] for name in received.factors])
    for name, rank in received.ranks.items():
        keys = factor_keys(name)
        came = tensors[keys[place]]
        if came.ndim != 2:
            raise SpecMismatch(f"shape of {keys[place]}", got=came.shape, expected=whole[keys[place]].shape)
        if came.shape[place] > rank:
            raise RankOutOfRange(
                f"rank of {name} in an update", got=came.shape[place], expected=f"0 to {rank}, as received"
            )
        kept = np.arange(came.shape[place])
        whole[keys[1 - place]] = whole[keys[1 - place]][_at(kept, 1 - place)]
        whole[keys[place]] = came.astype(np.float32)
    return from_tensors(received.spec, whole)
