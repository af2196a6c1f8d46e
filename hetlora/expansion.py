"""What an update stands for, made a module at a time from its tensors and what was received.

Names, shapes and indices are checked at once, for all modules; what the numbers of a module come to is for
whoever makes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hetlora.adapter import LoraFactors, Tensor
from hetlora.errors import RankOutOfRange, SpecMismatch
from hetlora.lazy_adapter import LazyAdapter
from hetlora.messages.device import Adaptation
from hetlora.partial_tensors import (
    check_entries,
    check_shape,
    cores_from_bytes,
    dense,
    positions_key,
    ranks_key,
    read_partial,
)
from hetlora.selection import kept_entries
from hetlora.sent_parts import LORA_A, is_plain, ranks_at, sent_places
from hetlora.stored_tensors import Source, Tensors
from hetlora.tensors import check_keys, factor_keys, read_adapter


def expand_lazily(source: Source, adaptation: Adaptation, received: LazyAdapter) -> LazyAdapter:
    """What `hetlora.partial.expand` makes of an update, which may lie in a file.

    Raises:
        MalformedTensors, NonFiniteValues, SpecMismatch, RankOutOfRange: see `expand`.
    """
    if adaptation.trained == "core":
        return cores_within(received, cores_from_bytes(source, received.spec, received.rank))
    if is_plain(adaptation):
        return read_adapter(source, received.spec)
    places, precision = sent_places(adaptation), adaptation.upload_precision
    tensors = read_partial(source, precision)
    if adaptation.upload_density < 1:
        return _plus_entries(received, tensors, adaptation)
    if adaptation.selected_ranks is not None:
        return _with_ranks(received, tensors, adaptation)
    if precision != "float32":
        return _plus_factors(received, tensors, places)
    return _with_factor(received, tensors, *places)


def cores_within(received: LazyAdapter, cores: Mapping[str, Tensor]) -> LazyAdapter:
    """The adapter with each core multiplied into its lora_B.

    Raises:
        SpecMismatch: modules have several ranks.
    """
    if set(received.ranks.values()) != {received.rank}:
        raise SpecMismatch("cores stand between factors of one rank", got=sorted({*received.ranks.values()}))

    def make(name: str) -> LoraFactors:
        own = received.make(name)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite then is refused afterwards
            return LoraFactors(own.lora_A, own.lora_B @ cores[name])

    return LazyAdapter(received.spec, received.ranks, make)


def _plus_entries(received: LazyAdapter, tensors: Tensors, adaptation: Adaptation) -> LazyAdapter:
    places = sent_places(adaptation)
    shapes = {
        factor_keys(name)[place]: _shape(received, name, place, rank)
        for name, rank in received.ranks.items()
        for place in places
    }
    check_keys(tensors, [*shapes, *map(positions_key, shapes)])
    allowed = kept_entries(adaptation.upload_density, sum(map(math.prod, shapes.values())))
    came = sum(tensors[key].size for key in shapes)
    if came > allowed:
        raise SpecMismatch("too many entries in an update", got=came, expected=f"up to {allowed}")
    for key, shape in shapes.items():
        check_entries(tensors, key, shape)

    def plus_entries(name: str, place: int, before: Tensor) -> Tensor:
        with np.errstate(over="ignore"):
            return before + dense(tensors, factor_keys(name)[place], before.shape)

    return _changed(received, places, plus_entries)


def _with_ranks(received: LazyAdapter, tensors: Tensors, adaptation: Adaptation) -> LazyAdapter:
    places = sent_places(adaptation)
    keys = [factor_keys(name)[place] for name in received.ranks for place in places]
    check_keys(tensors, [*keys, *map(ranks_key, received.ranks)])
    came = sum(tensors[ranks_key(name)].size for name in received.ranks)
    if came > (adaptation.selected_ranks or 0):
        raise RankOutOfRange(
            "too many ranks in an update", got=came, expected=f"up to {adaptation.selected_ranks}"
        )
    sent = {name: np.asarray(tensors[ranks_key(name)]) for name in received.ranks}
    for name, ranks in sent.items():
        rank = received.ranks[name]
        if ranks.size and ranks[-1] >= rank:
            raise RankOutOfRange(f"ranks of {name} in an update", got=ranks[-1], expected=f"below {rank}")
        for place in places:
            check_shape(tensors, factor_keys(name)[place], _shape(received, name, place, ranks.size))

    def with_ranks(name: str, place: int, before: Tensor) -> Tensor:
        after, at = before.copy(), ranks_at(sent[name], place)
        came = np.asarray(tensors[factor_keys(name)[place]])
        with np.errstate(over="ignore"):
            after[at] = came if adaptation.upload_precision == "float32" else before[at] + came
        return after

    return _changed(received, places, with_ranks)


def _changed(
    received: LazyAdapter, places: Sequence[int], change: Callable[[str, int, Tensor], Tensor]
) -> LazyAdapter:
    """The adapter with a change made to the factors at these places, given module and place."""

    def make(name: str) -> LoraFactors:
        own = received.make(name)
        factors = [own.lora_A, own.lora_B]
        for place in places:
            factors[place] = change(name, place, factors[place])
        return LoraFactors(*factors)

    return LazyAdapter(received.spec, received.ranks, make)


def _shape(received: LazyAdapter, name: str, place: int, rank: int) -> tuple[int, int]:
    """The shape of a module's factor at a rank."""
    module = received.spec.by_name[name]
    return (rank, module.in_features) if place == LORA_A else (module.out_features, rank)


def _plus_factors(received: LazyAdapter, tensors: Tensors, places: Sequence[int]) -> LazyAdapter:
    check_keys(tensors, [factor_keys(name)[place] for name in received.ranks for place in places])
    ranks = _whole_ranks(received, tensors, places[0])
    for name, rank in ranks.items():
        for place in places:
            check_shape(tensors, factor_keys(name)[place], _shape(received, name, place, rank))

    def make(name: str) -> LoraFactors:
        own, kept = received.make(name), slice(ranks[name])
        factors = [own.lora_A[kept], own.lora_B[:, kept]]
        with np.errstate(over="ignore"):
            for place in places:
                factors[place] = factors[place] + np.asarray(tensors[factor_keys(name)[place]])
        return LoraFactors(*factors)

    return LazyAdapter(received.spec, ranks, make)


def _with_factor(received: LazyAdapter, tensors: Tensors, place: int) -> LazyAdapter:
    keys = {name: factor_keys(name)[place] for name in received.ranks}
    check_keys(tensors, keys.values())
    ranks = _whole_ranks(received, tensors, place)

    def make(name: str) -> LoraFactors:
        own, came = received.make(name), np.asarray(tensors[keys[name]])
        kept = slice(ranks[name])
        return (
            LoraFactors(came, own.lora_B[:, kept]) if place == LORA_A else LoraFactors(own.lora_A[kept], came)
        )

    return LazyAdapter(received.spec, ranks, make)


def _whole_ranks(received: LazyAdapter, tensors: Tensors, place: int) -> dict[str, int]:
    """The ranks of factors that were sent whole, none above what was received."""
    ranks = {}
    for name, rank in received.ranks.items():
        key = factor_keys(name)[place]
        came = tensors[key].shape
        if len(came) != 2:
            expected = _shape(received, name, place, rank)
            raise SpecMismatch(f"shape of {key}", got=came, expected=expected)
        if came[place] > rank:
            raise RankOutOfRange(
                f"rank of {name} in an update", got=came[place], expected=f"0 to {rank}, as received"
            )
        ranks[name] = came[place]
    return ranks
