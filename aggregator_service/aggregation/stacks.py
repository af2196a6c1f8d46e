"""Adapters as the arithmetic takes them: modules of one name and shape stacked, so that no loop meets one.

A safetensors file of ours holds its factors in one run of float32, modules in the order of their names.
Layers repeat, so the factors of `q_proj` of every layer lie evenly spaced, and a stack is a view: no number
is copied. Files laid out otherwise, and adapters of unequal ranks, are copied once into even spacing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors
from hetlora.lazy_adapter import LazyAdapter

Array = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Group:
    """Modules that share the last part of their name and their shape, in the order of their names."""

    names: tuple[str, ...]
    in_features: int
    out_features: int

    def __len__(self) -> int:
        return len(self.names)


# By identity: to hash a specification is to hash each of its modules. The value keeps its key's owner alive.
_KNOWN_GROUPS: Final[dict[int, tuple[AdapterSpec, tuple[Group, ...]]]] = {}


def groups_of(spec: AdapterSpec) -> tuple[Group, ...]:
    """The modules of a specification in groups, which are ordered by their first module."""
    known = _KNOWN_GROUPS.get(id(spec))
    if known is None:
        if len(_KNOWN_GROUPS) >= 64:
            _KNOWN_GROUPS.clear()
        known = _KNOWN_GROUPS[id(spec)] = (spec, _groups(spec))
    return known[1]


def _groups(spec: AdapterSpec) -> tuple[Group, ...]:
    found: dict[tuple[str, int, int], list[str]] = {}
    for module in spec.modules:
        key = (module.name.rpartition(".")[2], module.in_features, module.out_features)
        found.setdefault(key, []).append(module.name)
    return tuple(Group(tuple(names), *shape) for (_, *shape), names in found.items())


@dataclass(frozen=True, slots=True)
class Spacing:
    """Where one group's factors lie in a flat array, counted in numbers; steps lead from module to module."""

    rank: int
    lora_A_start: int
    lora_A_step: int
    lora_B_start: int
    lora_B_step: int


@dataclass(frozen=True, slots=True)
class Stack:
    """Factors of one group: lora_A (modules, rank, in_features), lora_B (modules, out_features, rank)."""

    lora_A: Array
    lora_B: Array

    @property
    def rank(self) -> int:
        """The rank of every module; a module of lower rank has zeros beyond its own."""
        return int(self.lora_A.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class StackedAdapter:
    """One adapter over a flat array, float32 as it came or float64 as a sum.

    `module_ranks` holds each module's own rank, group by group, where modules of a group differ; else None.
    `squared_norms` are those of `norms.squared_norms`, where they were taken as the numbers were read.
    """

    spec: AdapterSpec
    values: Array
    layout: tuple[Spacing, ...]
    module_ranks: tuple[NDArray[np.intp], ...] | None = None
    squared_norms: tuple[NDArray[np.float64], ...] | None = None

    def __iter__(self) -> Iterator[Stack]:
        groups = groups_of(self.spec)
        return (_view(self.values, group, at) for group, at in zip(groups, self.layout, strict=True))

    @property
    def rank(self) -> int:
        """The largest rank over all modules."""
        return max(at.rank for at in self.layout)

    @property
    def ranks(self) -> tuple[NDArray[np.intp], ...]:
        """The rank of each module, group by group."""
        if self.module_ranks is not None:
            return self.module_ranks
        groups = groups_of(self.spec)
        return tuple(np.full(len(group), at.rank) for group, at in zip(groups, self.layout, strict=True))

    def with_values(self, values: Array) -> StackedAdapter:
        """Other numbers in the same places."""
        return StackedAdapter(self.spec, values, self.layout, self.module_ranks)


def _view(values: Array, group: Group, at: Spacing) -> Stack:
    # The bare constructor: `as_strided` takes ten times as long, which shows where groups are many.
    size, count, wide, high = values.itemsize, len(group), group.in_features, group.out_features
    start_A, start_B = at.lora_A_start * size, at.lora_B_start * size
    strides_A = (at.lora_A_step * size, wide * size, size)
    strides_B = (at.lora_B_step * size, at.rank * size, size)
    return Stack(
        np.ndarray((count, at.rank, wide), values.dtype, values, start_A, strides_A),
        np.ndarray((count, high, at.rank), values.dtype, values, start_B, strides_B),
    )


def even_layout(spec: AdapterSpec, ranks: Sequence[int]) -> tuple[tuple[Spacing, ...], int]:
    """Group after group, lora_A of all modules before lora_B: the layout of a copy, and its size."""
    spacings, start = [], 0
    for group, rank in zip(groups_of(spec), ranks, strict=True):
        step_A, step_B = rank * group.in_features, rank * group.out_features
        spacings.append(Spacing(rank, start, step_A, start + len(group) * step_A, step_B))
        start += len(group) * (step_A + step_B)
    return tuple(spacings), start


def zeros(
    spec: AdapterSpec, ranks: Sequence[int], dtype: type[np.floating[Any]] = np.float64
) -> StackedAdapter:
    """Zeros with these ranks, one for each group."""
    layout, size = even_layout(spec, ranks)
    return StackedAdapter(spec, np.zeros(size, dtype), layout)


def zeros_of(
    spec: AdapterSpec, ranks: Sequence[NDArray[np.intp]], dtype: type[np.floating[Any]] = np.float64
) -> StackedAdapter:
    """Zeros with a rank for each module, which `ranks` hold (modules,) group by group."""
    result = zeros(spec, [int(own.max()) for own in ranks], dtype)
    uneven = any(own.min() != own.max() for own in ranks)
    return StackedAdapter(spec, result.values, result.layout, tuple(ranks) if uneven else None)


def stacked(adapter: Adapter | LazyAdapter) -> StackedAdapter:
    """An adapter, copied into even spacing; modules below the largest rank of their group end in zeros.

    Raises:
        SpecMismatch, RankOutOfRange, NonFiniteValues: see `LazyAdapter.checked`.
    """
    if isinstance(adapter, Adapter):
        return stacked_factors(adapter.spec, adapter.factors)
    return _stacked(adapter.spec, adapter.ranks, adapter.checked)


def stacked_factors(spec: AdapterSpec, factors: Mapping[str, LoraFactors]) -> StackedAdapter:
    """Factors of every module, as `stacked`, of any rank: `Adapter` knows a highest."""
    return _stacked(spec, {name: own.rank for name, own in factors.items()}, factors.__getitem__)


def _stacked(
    spec: AdapterSpec, ranks: Mapping[str, int], factors_of_module: Callable[[str], LoraFactors]
) -> StackedAdapter:
    by_group = tuple(np.array([ranks[name] for name in group.names], np.intp) for group in groups_of(spec))
    copy = zeros_of(spec, by_group, np.float32)
    for group, stack in zip(groups_of(spec), copy, strict=True):
        for number, name in enumerate(group.names):
            own = factors_of_module(name)
            stack.lora_A[number, : own.rank] = own.lora_A
            stack.lora_B[number, :, : own.rank] = own.lora_B
    return copy


def unstacked(adapter: StackedAdapter) -> Adapter:
    """The same factors as an `Adapter`, in float32, each module at its own rank.

    Raises:
        NonFiniteValues: a number passes float32.
    """
    return Adapter(adapter.spec, factors_of(adapter))


def factors_of(adapter: StackedAdapter) -> dict[str, LoraFactors]:
    """The factors by module, as `unstacked`, of any rank and unchecked."""
    factors: dict[str, LoraFactors] = {}
    for group, stack, ranks in zip(groups_of(adapter.spec), adapter, adapter.ranks, strict=True):
        for name, lora_A, lora_B, rank in zip(group.names, stack.lora_A, stack.lora_B, ranks, strict=True):
            factors[name] = LoraFactors(lora_A[:rank], lora_B[:, :rank])
    return factors


def layout_of(spec: AdapterSpec, shapes: Mapping[str, tuple[int, int, int]]) -> tuple[Spacing, ...] | None:
    """The spacing of factors that lie where `shapes` says, or None if they are not evenly spaced.

    Args:
        shapes: by module its rank and where its lora_A and lora_B start, counted in numbers.
    """
    spacings = []
    for group in groups_of(spec):
        places = np.array([shapes[name] for name in group.names])
        steps = np.unique(np.diff(places, axis=0), axis=0)
        if len(steps) > 1 or (len(steps) == 1 and steps[0, 0] != 0):
            return None
        step_A, step_B = (int(steps[0, 1]), int(steps[0, 2])) if len(steps) else (0, 0)
        rank, start_A, start_B = map(int, places[0])
        spacings.append(Spacing(rank, start_A, step_A, start_B, step_B))
    return tuple(spacings)
