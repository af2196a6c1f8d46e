"""Adapters that are made a module at a time, so that no whole one is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, check_module


@dataclass(frozen=True, slots=True, eq=False)
class LazyAdapter:
    """An adapter whose ranks are known, and whose factors `make` gives by module name, each time anew.

    What `make` gives is not checked. Iteration checks each module as it comes to it, as `Adapter` does.
    """

    spec: AdapterSpec
    ranks: Mapping[str, int]
    make: Callable[[str], LoraFactors]

    def __iter__(self) -> Iterator[tuple[ModuleSpec, LoraFactors]]:
        for module in self.spec.modules:
            factors = self.make(module.name)
            check_module(module, factors, self.spec.max_rank)
            yield module, factors

    @property
    def rank(self) -> int:
        """The largest rank over all modules."""
        return max(self.ranks.values())

    def whole(self) -> Adapter:
        """All modules in memory.

        Raises:
            SpecMismatch, RankOutOfRange, NonFiniteValues: see `Adapter`.
        """
        return Adapter(self.spec, {name: self.make(name) for name in self.spec.by_name})


def lazily(adapter: Adapter) -> LazyAdapter:
    """An adapter in memory, for whoever takes a lazy one."""
    return LazyAdapter(adapter.spec, adapter.ranks, adapter.factors.__getitem__)
