"""LoRA adapters whose modules may have unequal ranks, and the specification they keep to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hetlora.errors import NonFiniteValues, RankOutOfRange, SpecMismatch

Tensor = NDArray[np.float32]

# Far above any model for small devices, and far below what memory and file formats can take.
MAX_FEATURES: Final = 2**24
MAX_MODULES: Final = 100_000
MAX_ADAPTER_BYTES: Final = 2**30  # in float32, at full rank


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """One linear layer that LoRA adapts: y = W x with W of (out_features, in_features)."""

    name: str
    in_features: int
    out_features: int

    def __post_init__(self) -> None:
        if not (self.name and self.name.isprintable()):
            raise SpecMismatch("a module needs a printable name", got=repr(self.name))
        for features in (self.in_features, self.out_features):
            if not 1 <= features <= MAX_FEATURES:
                raise SpecMismatch(
                    f"features of module {self.name}", got=features, expected=f"1 to {MAX_FEATURES}"
                )


@dataclass(frozen=True)
class AdapterSpec:
    """What every adapter of one bundle has in common.

    `scaling` multiplies B A at every rank alike (in PEFT's terms lora_alpha / r), so that truncating
    and padding keep their meaning. `modules` are ordered by name.
    """

    modules: tuple[ModuleSpec, ...]
    scaling: float
    max_rank: int

    def __post_init__(self) -> None:
        if len(self.modules) > MAX_MODULES:
            raise SpecMismatch("too many modules", got=len(self.modules), expected=f"up to {MAX_MODULES}")
        names = [module.name for module in self.modules]
        if not names or any(left >= right for left, right in pairwise(names)):
            raise SpecMismatch("modules must be present, unique and ordered by name", got=names)
        if not (np.isfinite(self.scaling) and self.scaling > 0):
            raise SpecMismatch("scaling must be finite and positive", got=self.scaling)
        # Beyond min(in, out) extra rows of A and columns of B add nothing to B A.
        narrowest = min(self.modules, key=lambda module: min(module.in_features, module.out_features))
        widest = min(narrowest.in_features, narrowest.out_features)
        if not 1 <= self.max_rank <= widest:
            raise RankOutOfRange(
                "max_rank must fit every module",
                got=self.max_rank,
                expected=f"1 to {widest}, the width of {narrowest.name}",
            )
        largest = 4 * self.parameters_per_rank * self.max_rank
        if largest > MAX_ADAPTER_BYTES:
            raise SpecMismatch(
                "an adapter at max_rank is too large",
                got=f"{largest} bytes",
                expected=f"up to {MAX_ADAPTER_BYTES}",
            )

    @cached_property
    def by_name(self) -> dict[str, ModuleSpec]:
        """The modules by name, in the order of `modules`."""
        return {module.name: module for module in self.modules}

    @property
    def parameters_per_rank(self) -> int:
        """How many numbers one unit of rank adds over all modules."""
        return sum(module.in_features + module.out_features for module in self.modules)


@dataclass(frozen=True, slots=True, eq=False)
class LoraFactors:
    """The two factors of one module's update: lora_A (rank, in_features), lora_B (out_features, rank).

    Both are float32 and read-only; other dtypes are converted. Rank 0 means that the module is not trained.
    """

    lora_A: Tensor
    lora_B: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "lora_A", _frozen_float32(self.lora_A))
        object.__setattr__(self, "lora_B", _frozen_float32(self.lora_B))
        shared_rank(self.lora_A.shape, self.lora_B.shape)

    @property
    def rank(self) -> int:
        """How many rows lora_A and columns lora_B has."""
        return int(self.lora_A.shape[0])


def shared_rank(lora_A: tuple[int, ...], lora_B: tuple[int, ...]) -> int:
    """The rank of factors of these shapes.

    Raises:
        SpecMismatch: they are no factors of one module.
    """
    if len(lora_A) != 2 or len(lora_B) != 2 or lora_A[0] != lora_B[1]:
        raise SpecMismatch(
            "factors of one module must share one rank",
            got=f"lora_A {lora_A}, lora_B {lora_B}",
            expected="lora_A (rank, in_features), lora_B (out_features, rank)",
        )
    return int(lora_A[0])


def _frozen_float32(values: NDArray[np.generic]) -> Tensor:
    # What passes float32 becomes infinite here and is refused by Adapter, which knows the module's name.
    with np.errstate(over="ignore", invalid="ignore"):
        tensor = np.ascontiguousarray(values, dtype=np.float32).view()
    tensor.flags.writeable = False
    return tensor


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """The LoRA factors of every module of a specification.

    Raises:
        SpecMismatch: a module is missing or unknown, or a shape differs from the specification.
        RankOutOfRange: a module's rank passes `spec.max_rank`.
        NonFiniteValues: a factor holds NaN or infinity.
    """

    spec: AdapterSpec
    factors: Mapping[str, LoraFactors]

    def __post_init__(self) -> None:
        missing = sorted(self.spec.by_name.keys() - self.factors.keys())
        unknown = sorted(self.factors.keys() - self.spec.by_name.keys())
        if missing or unknown:
            raise SpecMismatch(
                "modules differ from the specification", got=f"missing {missing}, unknown {unknown}"
            )
        object.__setattr__(self, "factors", {name: self.factors[name] for name in self.spec.by_name})
        for module, factors in self:
            check_module(module, factors, self.spec.max_rank)

    def __iter__(self) -> Iterator[tuple[ModuleSpec, LoraFactors]]:
        return ((module, self.factors[module.name]) for module in self.spec.modules)

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each module."""
        return {name: factors.rank for name, factors in self.factors.items()}

    @property
    def rank(self) -> int:
        """The largest rank over all modules."""
        return max(factors.rank for factors in self.factors.values())

    @property
    def size_bytes(self) -> int:
        """Bytes of all factors in float32, file header not counted."""
        return sum(factors.lora_A.nbytes + factors.lora_B.nbytes for factors in self.factors.values())


def check_module(module: ModuleSpec, factors: LoraFactors, max_rank: int) -> None:
    """Raise unless these may be the factors of a module.

    Raises:
        SpecMismatch, RankOutOfRange, NonFiniteValues: see `Adapter`.
    """
    got = (factors.lora_A.shape[1], factors.lora_B.shape[0])
    if got != (module.in_features, module.out_features):
        raise SpecMismatch(
            f"factors of {module.name} have the wrong width",
            got=f"in_features {got[0]}, out_features {got[1]}",
            expected=f"in_features {module.in_features}, out_features {module.out_features}",
        )
    if factors.rank > max_rank:
        raise RankOutOfRange(
            f"rank of {module.name} passes the limit", got=factors.rank, expected=f"0 to {max_rank}"
        )
    for name, tensor in (("lora_A", factors.lora_A), ("lora_B", factors.lora_B)):
        if not np.isfinite(tensor).all():
            count = int(tensor.size - np.isfinite(tensor).sum())
            raise NonFiniteValues(
                f"{name} of {module.name} holds values that are not finite",
                got=f"{count} of {tensor.size}",
                expected="finite float32 values",
            )


def initial_adapter(spec: AdapterSpec, rank: int, rng: np.random.Generator) -> Adapter:
    """A new adapter as PEFT initialises it: uniform lora_A within 1/sqrt(in_features), zero lora_B."""
    if not 0 <= rank <= spec.max_rank:
        raise RankOutOfRange("rank of a new adapter", got=rank, expected=f"0 to {spec.max_rank}")
    return Adapter(
        spec,
        {
            module.name: LoraFactors(
                _uniform(rng, (rank, module.in_features), 1 / np.sqrt(module.in_features)),
                np.zeros((module.out_features, rank), dtype=np.float32),
            )
            for module in spec.modules
        },
    )


def _uniform(rng: np.random.Generator, shape: tuple[int, int], bound: float) -> Tensor:
    return rng.uniform(-bound, bound, shape).astype(np.float32)
