"""What a graph is fed for the numbers that are trained, and what its gradients are to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from fake_bundle import tiny_files, tiny_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.runtimes.base import Batch, Factors
from edge_sdk.runtimes.factors import fed_factors
from edge_sdk.runtimes.model import FactorModel
from edge_sdk.training.parametrisation import Parametrisation, TrainedNumbers
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, Tensor
from hetlora.errors import NonFiniteValues, RankOutOfRange, SpecMismatch
from hetlora.messages.device import Adaptation
from hetlora.partial_tensors import core_key
from hetlora.tensors import factor_keys, to_tensors

SPEC = AdapterSpec((ModuleSpec("k", 3, 2), ModuleSpec("q", 2, 4)), scaling=2.0, max_rank=2)
K_A, K_B = factor_keys("k")
SHAPES_AT_5 = {"k": ((5, 3), (2, 5)), "q": ((5, 2), (4, 5))}
TRAINED: list[Any] = ["both", "lora_A", "lora_B", "core"]


class Told(FactorModel):
    """Answers with the factors that it is fed."""

    def __init__(self, factors: Factors | None, fixed_rank: int | None = None) -> None:
        manifest = tiny_manifest(tiny_files()).model_copy(update={"adapter": SPEC})
        super().__init__(manifest, factors, fixed_rank=fixed_rank)

    def logits_of(self, batch: Batch, factors: Factors) -> Any:
        return factors


def factors(rank_k: int, rank_q: int, rng: np.random.Generator) -> dict[str, LoraFactors]:
    """Small whole numbers, whose products are exact."""
    return {
        name: LoraFactors(rng.integers(-4, 5, (rank, width)), rng.integers(-4, 5, (height, rank)))
        for name, rank, width, height in (("k", rank_k, 3, 2), ("q", rank_q, 2, 4))
    }


def test_factors_are_fed_with_everything_that_acts_on_them() -> None:
    adapter = Adapter(
        SPEC,
        {
            "k": LoraFactors(np.array([[1, 2, 3]]), np.array([[4], [5]])),
            "q": LoraFactors(np.zeros((0, 2)), np.zeros((4, 0))),
        },
    )
    frozen = {"k": LoraFactors(np.array([[7, 8, 9]]), np.array([[1], [0]])), "q": adapter.factors["q"]}
    how = Parametrisation(
        Adaptation(trained="core", amplification=10.0),
        frozen,
        {"k": np.array([[2]], np.float32), "q": np.zeros((0, 0), np.float32)},
    )
    fed = TrainedNumbers(adapter, how).fed()
    assert fed[K_A].tolist() == [[10, 20, 30], [7, 8, 9]]
    assert fed[K_B].tolist() == [[8, 1], [10, 0]]  # 4 * 2 and 5 * 2, beside the frozen column
    assert {key: tensor.shape for key, tensor in fed.items() if "q" in key} == dict(
        zip(factor_keys("q"), ((0, 2), (4, 0)), strict=True)
    )
    assert how.ranks(adapter) == {"k": 2, "q": 0}
    assert {key: tensor.shape for key, tensor in fed_factors(fed, 5).items()} == {
        key: shape for name in "kq" for key, shape in zip(factor_keys(name), SHAPES_AT_5[name], strict=True)
    }


def test_model_that_infers_is_fed_as_the_one_that_trained() -> None:
    adapter = Adapter(SPEC, factors(1, 2, np.random.default_rng(0)))
    frozen = factors(3, 1, np.random.default_rng(1))  # k: 4 ranks together, where the specification has 2
    how = Parametrisation(Adaptation(trained="lora_B", amplification=3.0), frozen)
    trained = TrainedNumbers(adapter, how).fed()
    fed = Told(trained).logits({})
    assert list(fed) == list(trained)
    assert all((fed[key] == trained[key]).all() for key in fed)
    assert fed[K_A].shape == (4, 3)
    assert list(Told(dict(reversed(trained.items()))).logits({})) == list(trained)  # programs go by order
    plain = Told(TrainedNumbers(adapter, Parametrisation()).fed()).logits({})
    assert all((plain[key] == own).all() for key, own in Told(None).logits({}, adapter=adapter).items())


def test_model_that_nothing_is_given_stands_under_zeros() -> None:
    untrained = Told(None).logits({})
    assert untrained[K_A].shape == (1, 3)
    assert not any(tensor.any() for tensor in untrained.values())


def test_stamped_model_that_infers_takes_no_more_ranks_than_its_own() -> None:
    adapter = Adapter(SPEC, factors(1, 1, np.random.default_rng(0)))
    assert Told(to_tensors(adapter), 2).logits({})[K_A].shape == (2, 3)
    beside = Parametrisation(Adaptation(), factors(2, 0, np.random.default_rng(1)))
    with pytest.raises(RankOutOfRange, match="stamped for one rank; got 3; expected 2"):
        Told(TrainedNumbers(adapter, beside).fed(), 2)


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({K_A: np.zeros((2, 4))}, SpecMismatch),
        ({K_A: np.zeros((2, 3)), K_B: np.zeros((2, 1))}, SpecMismatch),
        ({"base_model.model.v.lora_A.weight": np.zeros((1, 3))}, SpecMismatch),
        ({K_B: np.full((2, 1), np.nan)}, NonFiniteValues),
    ],
)
def test_factors_of_no_such_model_are_refused(changed: dict[str, Any], refused: type[Exception]) -> None:
    whole = to_tensors(Adapter(SPEC, factors(1, 1, np.random.default_rng(0))))
    with pytest.raises(refused):
        Told({**whole, **changed})


@settings(deadline=None)  # the machine may be busy
@given(
    trained=st.sampled_from(TRAINED),
    amplification=st.sampled_from([0.5, 1.0, 4.0]),
    with_frozen=st.booleans(),
    ranks=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    seed=st.integers(0, 99),
)
def test_pulled_back_gradients_are_those_of_the_trained_numbers(
    trained: Any, amplification: float, with_frozen: bool, ranks: tuple[int, int], seed: int
) -> None:
    # A loss that is linear in what is fed is linear in each trained number: its slope is a difference.
    rng = np.random.default_rng(seed)
    adapter = Adapter(SPEC, factors(*ranks, rng))
    cores = {
        name: rng.integers(-4, 5, (rank, rank)).astype(np.float32) for name, rank in adapter.ranks.items()
    }
    numbers = TrainedNumbers(
        adapter,
        Parametrisation(
            Adaptation(trained=trained, amplification=amplification),
            factors(1, 3, rng) if with_frozen else None,
            cores if trained == "core" else {},
        ),
    )
    slopes = {
        key: rng.integers(-4, 5, tensor.shape).astype(np.float32) for key, tensor in numbers.fed().items()
    }

    def loss(fed: Mapping[str, Tensor]) -> float:
        return float(sum((slopes[key] * tensor).sum() for key, tensor in fed.items()))

    gradients = numbers.pulled_back(slopes)
    assert gradients.keys() == numbers.tensors.keys()
    before = loss(numbers.fed())
    for key, tensor in numbers.tensors.items():
        for place in np.ndindex(tensor.shape):
            tensor[place] += 1
            assert loss(numbers.fed()) - before == gradients[key][place]
            tensor[place] -= 1


def test_core_that_is_no_longer_finite_is_told_when_it_is_read() -> None:
    adapter = Adapter(SPEC, factors(1, 1, np.random.default_rng(0)))
    cores = {name: np.ones((1, 1), np.float32) for name in "kq"}
    numbers = TrainedNumbers(adapter, Parametrisation(Adaptation(trained="core"), cores=cores))
    numbers.tensors[core_key("q")][:] = np.inf
    with pytest.raises(NonFiniteValues, match="core of q"):
        numbers.cores()


@pytest.mark.parametrize(
    "frozen",
    [
        {"v": LoraFactors(np.ones((1, 3)), np.ones((2, 1)))},
        {"k": LoraFactors(np.ones((1, 2)), np.ones((2, 1)))},
    ],
)
def test_frozen_factors_of_another_specification_are_refused(frozen: dict[str, LoraFactors]) -> None:
    adapter = Adapter(SPEC, factors(1, 1, np.random.default_rng(0)))
    with pytest.raises(SpecMismatch, match="frozen factors of"):
        TrainedNumbers(adapter, Parametrisation(frozen=frozen))
