"""Leading singular triplets against a full singular value decomposition in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from aggregator_service.aggregation.leading import leading, pays
from aggregator_service.aggregation.spectrum import Spectrum, of_dense, of_factors
from aggregator_service.aggregation.tree import one_thread

RANK = 8
HIGH, WIDE, INNER = 220, 150, 190
Floats = np.ndarray

# Singular values of 150, of which 8 are wanted.
INDEX = np.arange(WIDE)
SHAPES: dict[str, Floats] = {
    "flat": np.linspace(1, 0.5, WIDE),
    "nearly flat": np.linspace(1, 0.99, WIDE),
    "slow": (1 + INDEX) ** -0.5,
    "falling": 0.9**INDEX,
    "steep": 0.5**INDEX,
    "signal and noise": np.r_[np.linspace(1, 0.2, RANK), np.full(WIDE - RANK, 0.003)],
    "small signal": np.r_[np.linspace(1, 0.5, 4), np.full(4, 1e-3), np.full(WIDE - RANK, 1e-5)],
    "rank as wanted": np.r_[np.linspace(1, 0.2, RANK), np.zeros(WIDE - RANK)],
    "rank above": np.r_[np.linspace(1, 0.2, RANK + 2), np.zeros(WIDE - RANK - 2)],
    "rank below": np.r_[np.linspace(1, 0.2, RANK - 2), np.zeros(WIDE - RANK + 2)],
    "one large": np.r_[1e4, np.linspace(1, 0.5, WIDE - 1)],
    "tiny": 1e-25 * 0.8**INDEX,
    "huge": 1e25 * 0.8**INDEX,
}


@pytest.fixture(autouse=True)
def as_in_a_round() -> Iterator[None]:
    """BLAS on one thread, as the tree has it."""
    with one_thread():
        yield


every_shape = pytest.mark.parametrize("shape", SHAPES)


def orthonormal(rows: int, columns: int, seed: int) -> Floats:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, columns)))[0]


def factors(values: Floats, seed: int = 0) -> tuple[Floats, Floats]:
    """L (HIGH, INNER) and R (INNER, WIDE), float32; their product has these values but for rounding."""
    root, inner = np.sqrt(values), orthonormal(INNER, WIDE, seed + 2)
    left = (orthonormal(HIGH, WIDE, seed) * root) @ inner.T
    right = (inner * root) @ orthonormal(WIDE, WIDE, seed + 1).T
    return left.astype(np.float32), right.astype(np.float32)


def dense(left: Floats, right: Floats, scales: Floats | None = None) -> Floats:
    weighted = left.astype(float) if scales is None else left.astype(float) * scales
    return weighted @ right.astype(float)


def best(matrix: Floats, rank: int = RANK) -> Floats:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def product(found: Spectrum) -> Floats:
    return (found.left * found.values) @ found.right


def off(found: Floats, expected: Floats) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_iteration_is_taken_for_these_sizes_and_not_for_small_ones() -> None:
    # A block of 12 for rank 8, times 4.
    assert pays(48, RANK)
    assert not pays(47, RANK)


@every_shape
@pytest.mark.parametrize("energies", [True, False])
def test_product_of_the_triplets_is_the_best_of_its_rank(shape: str, energies: bool) -> None:
    left, right = factors(SHAPES[shape])
    matrix = dense(left, right)
    found = of_factors(left, np.ones(INNER), right, RANK, energies)
    assert off(product(found), best(matrix)) < 1e-5
    if energies:
        rest = np.linalg.norm(matrix - best(matrix))
        assert found.energy == pytest.approx(np.sum(matrix**2), rel=1e-6)
        assert found.error == pytest.approx(rest, rel=1e-3, abs=1e-6 * np.linalg.norm(matrix))


@every_shape
def test_triplets_are_orthonormal_and_in_order(shape: str) -> None:
    left, right = factors(SHAPES[shape])
    found = of_factors(left, np.ones(INNER), right, RANK, False)
    count = len(found.values)
    np.testing.assert_allclose(found.left.T @ found.left, np.eye(count), atol=1e-3)
    np.testing.assert_allclose(found.right @ found.right.T, np.eye(count), atol=1e-3)
    assert (np.diff(found.values) <= 0).all()
    np.testing.assert_allclose(found.values, SHAPES[shape][:count], rtol=1e-3)


@pytest.mark.parametrize("shape", ["flat", "falling", "signal and noise", "tiny"])
def test_wide_product_is_the_tall_one_on_its_side(shape: str) -> None:
    left, right = factors(SHAPES[shape])
    tall = of_factors(left, np.ones(INNER), right, RANK, False)
    wide = of_factors(right.T, np.ones(INNER), left.T, RANK, False)
    assert off(product(wide).T, product(tall)) < 1e-5


def test_scales_weigh_the_terms_of_the_sum() -> None:
    left, right = factors(SHAPES["signal and noise"])
    scales = np.random.default_rng(5).uniform(-1, 2, INNER)
    found = of_factors(left, scales, right, RANK, False)
    assert off(product(found), best(dense(left, right, scales))) < 1e-5


@every_shape
def test_equal_products_give_equal_bytes(shape: str) -> None:
    left, right = factors(SHAPES[shape])
    first, second = (of_factors(left.copy(), np.ones(INNER), right.copy(), RANK, False) for _ in range(2))
    assert product(first).tobytes() == product(second).tobytes()


def iterated(values: Floats) -> tuple[Floats, Floats] | None:
    left, right = factors(values)
    return leading((left, right), lambda: (left.astype(float), right.astype(float)), RANK, 2.0**-24)


@pytest.mark.parametrize(
    "shape", ["slow", "falling", "steep", "signal and noise", "rank as wanted", "rank above"]
)
def test_iteration_comes_to_a_result_that_its_check_accepts(shape: str) -> None:
    found = iterated(SHAPES[shape])
    assert found is not None
    left, images = found
    matrix = dense(*factors(SHAPES[shape]))
    assert off(left.astype(float) @ images, best(matrix)) < 1e-5


@pytest.mark.parametrize("shape", ["nearly flat", "rank below", "tiny", "huge"])
def test_iteration_that_comes_not_near_enough_gives_no_result(shape: str) -> None:
    assert iterated(SHAPES[shape]) is None


@pytest.mark.parametrize("number", [np.inf, np.nan, 3e38])
def test_iteration_over_what_float32_does_not_hold_gives_no_result(number: float) -> None:
    left, right = factors(SHAPES["falling"])
    left[0, 0] = right[0, 0] = number
    assert leading((left, right), lambda: (left, right), RANK, 0.0) is None


def test_sum_that_cancels_has_no_triplets() -> None:
    left, right = factors(SHAPES["falling"])
    twice = np.concatenate([left, left], axis=1), np.concatenate([right, right])
    found = of_factors(twice[0], np.repeat([1.0, -1.0], INNER), twice[1], RANK)
    assert len(found.values) == 0


def test_sum_of_nothing_has_no_triplets() -> None:
    left, right = np.zeros((HIGH, INNER), np.float32), np.zeros((INNER, WIDE), np.float32)
    for energies in (True, False):
        found = of_factors(left, np.ones(INNER), right, RANK, energies)
        assert len(found.values) == 0
        assert found.left.shape == (HIGH, 0)
        assert found.right.shape == (0, WIDE)


@pytest.mark.parametrize("inner", [1, 5, 40])
def test_few_terms_go_through_a_thin_decomposition(inner: int) -> None:
    rng = np.random.default_rng(inner)
    left = rng.standard_normal((HIGH, inner)).astype(np.float32)
    right = rng.standard_normal((inner, WIDE)).astype(np.float32)
    found = of_factors(left, np.ones(inner), right, RANK)
    matrix = dense(left, right)
    assert off(product(found), best(matrix)) < 1e-10
    assert len(found.values) == min(RANK, inner)
    assert found.energy == pytest.approx(np.sum(matrix**2))


def test_literal_values_of_a_small_matrix() -> None:
    # diag(3, 2, 1) on its side: values 3 and 2, energy 14, of which 1 is left.
    found = of_dense(np.diag([1.0, 3.0, 2.0]), 2)
    np.testing.assert_allclose(found.values, [3.0, 2.0])
    np.testing.assert_allclose(found.right, [[0, 1, 0], [0, 0, 1]], atol=1e-12)
    assert found.energy == pytest.approx(14.0)
    assert found.error == pytest.approx(1.0)


@pytest.fixture
def gemma_like(request: pytest.FixtureRequest) -> Callable[[], tuple[Floats, Floats]]:
    """A q_proj of 640 to 1024 features and 48 devices of ranks 4 to 32, unrelated or moved from one start."""
    rng = np.random.default_rng(1)
    ranks = [4, 8, 16, 32] * 12
    start = rng.standard_normal((1024, 32)), rng.standard_normal((32, 640))
    own, common = (0.1, 1.0) if request.param == "signal and noise" else (1.0, 0.0)
    high, wide = (np.arange(1, size + 1) ** (-0.75 * (request.param == "falling")) for size in (1024, 640))
    lefts = [common * start[0][:, :r] + own * rng.standard_normal((1024, r)) * high[:, None] for r in ranks]
    rights = [common * start[1][:r] + own * rng.standard_normal((r, 640)) * wide for r in ranks]
    left, right = np.concatenate(lefts, axis=1), np.concatenate(rights)
    return lambda: (left.astype(np.float32), right.astype(np.float32))


@pytest.mark.parametrize(
    ("gemma_like", "promised"),
    [("flat", 1e-6), ("falling", 2e-6), ("signal and noise", 1e-6)],
    indirect=["gemma_like"],
)
def test_module_of_a_real_size_is_within_a_fifth_of_what_is_promised(
    gemma_like: Callable[[], tuple[Floats, Floats]], promised: float
) -> None:
    left, right = gemma_like()
    found = of_factors(left, np.full(left.shape[1], 0.02), right, 32, False)
    assert off(product(found), best(0.02 * dense(left, right), 32)) < promised


def test_product_without_a_rank_has_no_triplets() -> None:
    found = of_factors(np.zeros((5, 0)), np.zeros(0), np.zeros((0, 4)), 2)
    assert (found.left.shape, found.values.shape, found.right.shape) == ((5, 0), (0,), (0, 4))
    assert found.energy == 0
