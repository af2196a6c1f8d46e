import numpy as np
import pytest
from fake_bundle import SPEC, adapter_of
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.training.pruning import self_prune
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec


def _tail_scaled(adapter: Adapter, keep: int, factor: float) -> Adapter:
    """The same adapter with the columns of lora_B from `keep` on multiplied."""
    lora_B = adapter.factors["query"].lora_B.copy()
    lora_B[:, keep:] *= factor
    return Adapter(SPEC, {"query": LoraFactors(adapter.factors["query"].lora_A, lora_B)})


def test_shrunken_tail_is_cut() -> None:
    # c = floor(0.99 * 4) = 3. Tail before: ||B[:, 3]|| ||A[3]|| = 0.25 sqrt(6) * 0.5 sqrt(4) = 0.6124,
    # after: half of that. 0.3062 < 0.6124, so rank 4 becomes 3.
    received = adapter_of(4)
    pruned = self_prune(received, _tail_scaled(received, 3, 0.5), pruning_decay=0.99, min_rank=1)
    assert pruned.rank == 3
    np.testing.assert_array_equal(pruned.factors["query"].lora_A, np.full((3, 4), 0.5))


def test_grown_tail_stays() -> None:
    received = adapter_of(4)
    trained = _tail_scaled(received, 3, 1.5)
    assert self_prune(received, trained, pruning_decay=0.99, min_rank=1) is trained


def test_equal_tail_stays_as_the_comparison_is_strict() -> None:
    received = adapter_of(4)
    assert self_prune(received, received, pruning_decay=0.99, min_rank=1).rank == 4


def test_first_round_prunes_nothing_as_the_received_tail_is_zero() -> None:
    # A new adapter has lora_B = 0, so its tail norm is 0 and no norm is below that.
    assert self_prune(adapter_of(4, b=0), adapter_of(4), pruning_decay=0.5, min_rank=1).rank == 4


def test_pruning_stops_at_min_rank() -> None:
    # c = floor(0.25 * 4) = 1, below the floor of 3.
    received = adapter_of(4)
    pruned = self_prune(received, _tail_scaled(received, 1, 0.5), pruning_decay=0.25, min_rank=3)
    assert pruned.rank == 3


def test_decay_of_one_never_prunes() -> None:
    received = adapter_of(4)
    assert self_prune(received, _tail_scaled(received, 0, 0.1), pruning_decay=1.0, min_rank=1).rank == 4


TWO = AdapterSpec((ModuleSpec("a", 2, 2), ModuleSpec("b", 2, 2)), scaling=1.0, max_rank=2)


def two_modules(tail_a: float, tail_b: float) -> Adapter:
    """Rank 2, of one number a rank: with c = 1 the tail of a module is |b2| |a2|, here the number given."""
    lora_A = np.array([[1, 0], [0, 1]])
    return Adapter(
        TWO,
        {
            "a": LoraFactors(lora_A, np.array([[1, tail_a], [0, 0]])),
            "b": LoraFactors(lora_A, np.array([[1, tail_b], [0, 0]])),
        },
    )


def test_decision_is_one_for_all_modules() -> None:
    # Received: 1 + 1 = 2. Trained: "a" grew to 1.5, "b" shrank to 0.2: 1.7 < 2, so both are cut.
    pruned = self_prune(two_modules(1, 1), two_modules(1.5, 0.2), pruning_decay=0.5, min_rank=1)
    assert pruned.ranks == {"a": 1, "b": 1}


def test_module_that_is_not_trained_has_no_say_and_keeps_its_rank() -> None:
    # With both of them 3.2 would not be below 2; "b" alone went from 1 to 0.2.
    pruned = self_prune(
        two_modules(1, 1), two_modules(3, 0.2), pruning_decay=0.5, min_rank=1, untrained=("a",)
    )
    assert pruned.ranks == {"a": 2, "b": 1}


def test_each_module_decides_for_itself_where_it_may() -> None:
    received, trained = two_modules(1, 1), two_modules(1.5, 0.2)
    pruned = self_prune(received, trained, pruning_decay=0.5, min_rank=1, prune_by="module")
    assert pruned.ranks == {"a": 2, "b": 1}
    # Where they decide together nothing is cut once "a" grew by more than "b" shrank: 3 + 0.2 > 2.
    trained = two_modules(3, 0.2)
    assert self_prune(received, trained, pruning_decay=0.5, min_rank=1) is trained
    assert self_prune(received, trained, pruning_decay=0.5, min_rank=1, prune_by="module").ranks["b"] == 1
    kept = self_prune(received, trained, pruning_decay=0.5, min_rank=2, prune_by="module")
    assert kept.ranks == {"a": 2, "b": 2}


def test_modules_of_unequal_ranks_keep_their_own_leading_share() -> None:
    # Ranks 4, 1 and 0 at decay 0.5: c is 2, 0 and 0. The tails shrink, and min_rank keeps the second's 1.
    spec = AdapterSpec(tuple(ModuleSpec(name, 4, 4) for name in "abc"), scaling=1.0, max_rank=4)
    ranks = {"a": 4, "b": 1, "c": 0}

    def made(lora_B: float) -> Adapter:
        return Adapter(
            spec,
            {name: LoraFactors(np.ones((r, 4)), np.full((4, r), lora_B)) for name, r in ranks.items()},
        )

    pruned = self_prune(made(1), made(0.5), pruning_decay=0.5, min_rank=1)
    assert pruned.ranks == {"a": 2, "b": 1, "c": 0}


@settings(deadline=None)  # the machine may be busy
@given(
    decay=st.floats(0.01, 1.0),
    min_rank=st.integers(1, 4),
    factor=st.floats(0.0, 2.0),
    rank=st.integers(1, 4),
)
def test_pruned_rank_lies_between_the_floor_and_the_old_rank(
    decay: float, min_rank: int, factor: float, rank: int
) -> None:
    received = adapter_of(rank)
    pruned = self_prune(
        received, _tail_scaled(received, 0, factor), pruning_decay=decay, min_rank=min(min_rank, rank)
    )
    assert min(min_rank, rank) <= pruned.rank <= rank


@pytest.mark.parametrize("rank", range(2, 101))
def test_decay_of_the_paper_drops_one_rank(rank: int) -> None:
    # floor(0.99 r) = r - 1 for r up to 100.
    spec = AdapterSpec((ModuleSpec("a", 128, 128),), scaling=1.0, max_rank=128)
    ones = np.ones((rank, 128))
    received = Adapter(spec, {"a": LoraFactors(ones, ones.T)})
    trained = Adapter(spec, {"a": LoraFactors(ones, 0.5 * ones.T)})
    assert self_prune(received, trained, pruning_decay=0.99, min_rank=1).rank == rank - 1
