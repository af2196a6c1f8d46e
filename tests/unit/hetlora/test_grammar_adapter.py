from __future__ import annotations

import numpy as np
import pytest

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, initial_adapter
from hetlora.errors import NonFiniteValues, RankOutOfRange, SpecMismatch

Q, V = ModuleSpec("q", in_features=3, out_features=2), ModuleSpec("v", in_features=2, out_features=4)
SPEC = AdapterSpec((Q, V), scaling=2.0, max_rank=2)


def zeros(module: ModuleSpec, rank: int) -> LoraFactors:
    return LoraFactors(np.zeros((rank, module.in_features)), np.zeros((module.out_features, rank)))


@pytest.mark.parametrize(
    ("name", "in_features", "out_features"),
    [("", 1, 1), ("q\nv", 1, 1), ("q\0", 1, 1), ("\ud800", 1, 1), ("q", 0, 1), ("q", 1, 0), ("q", -3, 1)],
)
def test_module_without_printable_name_or_features_is_refused(
    name: str, in_features: int, out_features: int
) -> None:
    with pytest.raises(SpecMismatch):
        ModuleSpec(name, in_features, out_features)


@pytest.mark.parametrize("modules", [(), (V, Q), (Q, Q)], ids=["none", "out of order", "twice"])
def test_spec_refuses_modules_that_are_not_unique_and_ordered(modules: tuple[ModuleSpec, ...]) -> None:
    with pytest.raises(SpecMismatch, match="ordered by name"):
        AdapterSpec(modules, scaling=1.0, max_rank=1)


@pytest.mark.parametrize("scaling", [0.0, -1.0, float("nan"), float("inf")])
def test_spec_refuses_scaling_that_is_not_finite_and_positive(scaling: float) -> None:
    with pytest.raises(SpecMismatch, match="scaling"):
        AdapterSpec((Q,), scaling, max_rank=1)


@pytest.mark.parametrize("max_rank", [0, -1, 3])
def test_spec_refuses_max_rank_that_does_not_fit_the_narrowest_module(max_rank: int) -> None:
    with pytest.raises(RankOutOfRange, match="expected 1 to 2"):  # q has 2 outputs, v has 2 inputs
        AdapterSpec((Q, V), 1.0, max_rank)


def test_spec_refuses_what_no_memory_can_take() -> None:
    with pytest.raises(SpecMismatch, match="1 to 16777216"):
        ModuleSpec("q", 2**24 + 1, 1)
    widest = ModuleSpec("q", 2**24, 2**24)
    # 4 bytes * 2 * 2**24 * 8 ranks = 2**30
    assert AdapterSpec((widest,), 1.0, max_rank=8)
    with pytest.raises(SpecMismatch, match="an adapter at max_rank is too large"):
        AdapterSpec((widest,), 1.0, max_rank=9)
    with pytest.raises(SpecMismatch, match="too many modules"):
        AdapterSpec((Q,) * 100_001, 1.0, max_rank=1)


def test_parameters_per_rank_counts_both_sides_of_every_module() -> None:
    assert SPEC.parameters_per_rank == (3 + 2) + (2 + 4)


def test_factors_are_converted_to_read_only_float32() -> None:
    lora_A = np.ones((1, 3), dtype=np.float64)
    factors = LoraFactors(lora_A, np.asfortranarray(np.ones((2, 1), dtype=np.float16)))
    assert factors.lora_A.dtype == factors.lora_B.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        factors.lora_A[0, 0] = 5
    lora_A[0, 0] = 5  # the caller's own array stays writable
    assert factors.lora_A[0, 0] == 1


def test_freezing_factors_leaves_the_callers_float32_array_writable() -> None:
    lora_A = np.ones((1, 3), dtype=np.float32)
    LoraFactors(lora_A, np.ones((2, 1)))
    assert lora_A.flags.writeable


@pytest.mark.parametrize(
    ("shape_A", "shape_B"),
    [
        ((1, 3), (2, 2)),
        ((3,), (2, 1)),
        ((1, 3), (2,)),
        ((1, 3, 1), (2, 1)),
        ((), (2, 1)),
        ((1, 3), (2, 1, 1)),
    ],
)
def test_factors_that_share_no_rank_are_refused(shape_A: tuple[int, ...], shape_B: tuple[int, ...]) -> None:
    with pytest.raises(SpecMismatch, match="share one rank"):
        LoraFactors(np.zeros(shape_A), np.zeros(shape_B))


def test_adapter_allows_unequal_ranks_and_rank_zero() -> None:
    adapter = Adapter(SPEC, {"v": zeros(V, 0), "q": zeros(Q, 2)})
    assert adapter.ranks == {"q": 2, "v": 0}
    assert list(adapter.ranks) == ["q", "v"]  # the order of the specification, not of the mapping
    assert adapter.rank == 2
    assert adapter.size_bytes == 4 * (2 * 3 + 2 * 2)


@pytest.mark.parametrize(
    "factors", [{"q": zeros(Q, 1)}, {"q": zeros(Q, 1), "v": zeros(V, 1), "k": zeros(Q, 1)}, {}]
)
def test_adapter_refuses_missing_and_unknown_modules(factors: dict[str, LoraFactors]) -> None:
    with pytest.raises(SpecMismatch, match="modules differ"):
        Adapter(SPEC, factors)


def test_adapter_refuses_factors_of_another_width() -> None:
    with pytest.raises(SpecMismatch, match="in_features 2, out_features 4; expected in_features 3"):
        Adapter(SPEC, {"q": zeros(V, 1), "v": zeros(V, 1)})


def test_adapter_refuses_rank_above_max_rank() -> None:
    with pytest.raises(RankOutOfRange, match="got 3; expected 0 to 2"):
        Adapter(SPEC, {"q": zeros(Q, 3), "v": zeros(V, 1)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_adapter_refuses_values_that_are_not_finite_in_float32(value: float) -> None:
    lora_B = np.array([[0.0], [value]])
    with pytest.raises(NonFiniteValues, match=r"lora_B of q .* got 1 of 2"):
        Adapter(SPEC, {"q": LoraFactors(np.zeros((1, 3)), lora_B), "v": zeros(V, 1)})


def test_initial_adapter_changes_nothing_and_keeps_within_pefts_bound() -> None:
    spec = AdapterSpec((ModuleSpec("q", 400, 300),), 1.0, 8)
    factors = initial_adapter(spec, 8, np.random.default_rng(0)).factors["q"]
    assert not factors.lora_B.any()
    # kaiming_uniform with a = sqrt(5): bound = sqrt(6 / ((1 + 5) * 400)) = 1/20; variance = bound^2 / 3
    assert np.abs(factors.lora_A).max() <= 0.05 + 1e-9
    assert factors.lora_A.var() == pytest.approx(0.05**2 / 3, rel=0.1)


def test_initial_adapter_follows_its_seed() -> None:
    one, again, other = (initial_adapter(SPEC, 2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.factors["v"].lora_A, again.factors["v"].lora_A)
    assert not np.array_equal(one.factors["v"].lora_A, other.factors["v"].lora_A)


@pytest.mark.parametrize("rank", [-1, 3])
def test_initial_adapter_refuses_rank_outside_the_spec(rank: int) -> None:
    with pytest.raises(RankOutOfRange):
        initial_adapter(SPEC, rank, np.random.default_rng(0))
