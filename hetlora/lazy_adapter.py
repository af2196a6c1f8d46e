"""Adapters that are made a module at a time, so that no whole one is in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, check_module


@dataclass(frozen=True, slots=True, eq=False)
class LazyAdapter:
    """An adapter whose ranks are known, and whose factors `make` gives by module name, each time anew.

    What `make` gives is not checked; `checked` is that, as `Adapter` has it.
    """

    spec: AdapterSpec
    ranks: Mapping[str, int]
    make: Callable[[str], LoraFactors]

    def checked(self, name: str) -> LoraFactors:
        """The factors of a module, as it may have them.

        Raises:
            SpecMismatch, RankOutOfRange, NonFiniteValues: see `Adapter`.
        """
        factors = self.make(name)
        check_module(self.spec.by_name[name], factors, self.spec.max_rank)
        return factors

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
