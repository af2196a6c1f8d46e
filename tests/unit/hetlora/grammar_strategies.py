"""Hypothesis strategies for the tests of the grammar: specifications and adapters of unequal ranks."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, Tensor

MODULE_NAMES = st.from_regex(r"[a-z]{1,4}(\.[0-9a-z]{1,4}){0,2}", fullmatch=True)
FINITE_FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Sums and products of these are exact in float32 and float64, so that laws hold to the last bit.
SMALL_INTEGERS = st.integers(-8, 8).map(float)


@st.composite
def specs(
    draw: st.DrawFn, names: st.SearchStrategy[str] = MODULE_NAMES, most_features: int = 5
) -> AdapterSpec:
    """One to three modules of up to `most_features` a side."""
    features = st.integers(1, most_features)
    modules = [
        ModuleSpec(name, draw(features), draw(features))
        for name in sorted(draw(st.lists(names, min_size=1, max_size=3, unique=True)))
    ]
    widest = min(min(module.in_features, module.out_features) for module in modules)
    return AdapterSpec(tuple(modules), draw(st.sampled_from([0.25, 1.0, 2.0])), draw(st.integers(1, widest)))


@st.composite
def adapters(
    draw: st.DrawFn, values: st.SearchStrategy[float] = SMALL_INTEGERS, *, equal_ranks: bool = False
) -> Adapter:
    """An adapter of its own specification; its modules have ranks of their own unless `equal_ranks`."""
    spec = draw(specs())
    ranks = st.integers(0, spec.max_rank)
    shared = draw(ranks)
    factors = {}
    for module in spec.modules:
        rank = shared if equal_ranks else draw(ranks)
        lora_A = draw(hnp.arrays(np.float32, (rank, module.in_features), elements=values))
        lora_B = draw(hnp.arrays(np.float32, (module.out_features, rank), elements=values))
        factors[module.name] = LoraFactors(lora_A, lora_B)
    return Adapter(spec, factors)


def same_bits(left: Adapter, right: Adapter) -> bool:
    """Whether two adapters have one specification and the same bits in every factor."""
    return left.spec == right.spec and all(
        _same(left.factors[name].lora_A, right.factors[name].lora_A)
        and _same(left.factors[name].lora_B, right.factors[name].lora_B)
        for name in left.spec.by_name
    )


def _same(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
