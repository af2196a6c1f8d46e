"""What a device sends of an adapter is what the service reads back, for every kind of adaptation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grammar_strategies import SMALL_INTEGERS, adapters, same_bits
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.algebra import truncate
from hetlora.errors import RankOutOfRange, SpecMismatch
from hetlora.messages.device import Adaptation
from hetlora.partial import contract, expand
from hetlora.partial_tensors import cores_from_bytes, max_partial_bytes
from hetlora.plan_adapter import (
    frozen_from_bytes,
    sent_from_bytes,
    sent_tensors,
    sparse_tensors,
)
from hetlora.selection import kept_entries, largest_entries, moved_most, part_moves
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import adapter_to_bytes, factor_tensors, to_tensors

SPEC = AdapterSpec((ModuleSpec("k", 3, 2), ModuleSpec("q", 2, 4)), scaling=2.0, max_rank=2)
KEY = "base_model.model."
KINDS: dict[str, dict[str, Any]] = {
    "lora_A": {"trained": "lora_A"},
    "lora_B": {"trained": "lora_B"},
    "private": {"private_lora_B": True},
    "faster lora_B": {"lora_B_rate": 5.0},
    "sketch": {"ranks": (0, 5), "amplification": 4.0},
}


def adapter_of(k_A: Any, k_B: Any, q_A: Any, q_B: Any) -> Adapter:
    return Adapter(SPEC, {"k": LoraFactors(np.array(k_A), np.array(k_B)), "q": LoraFactors(q_A, q_B)})


def ones() -> Adapter:
    return adapter_of(np.ones((2, 3)), np.ones((2, 2)), np.ones((2, 2)), np.ones((4, 2)))


@st.composite
def moved(draw: st.DrawFn) -> tuple[Adapter, Adapter]:
    """An adapter as it was received and, of the same ranks, as training left it."""
    received = draw(adapters())
    factors = {
        name: LoraFactors(
            *(
                np.array(draw(st.lists(SMALL_INTEGERS, min_size=t.size, max_size=t.size))).reshape(t.shape)
                for t in (own.lora_A, own.lora_B)
            )
        )
        for name, own in received.factors.items()
    }
    return received, Adapter(received.spec, factors)


def kept_of(trained: Adapter, received: Adapter, *, lora_A: bool = True, lora_B: bool = True) -> Adapter:
    """`trained` in the factors named, `received` in the other."""
    return Adapter(
        trained.spec,
        {
            name: LoraFactors(
                own.lora_A if lora_A else received.factors[name].lora_A[: own.rank],
                own.lora_B if lora_B else received.factors[name].lora_B[:, : own.rank],
            )
            for name, own in trained.factors.items()
        },
    )


@given(moved())
def test_plain_update_is_the_bytes_of_the_adapter(pair: tuple[Adapter, Adapter]) -> None:
    received, trained = pair
    data = contract(trained, Adaptation(), received)
    assert data == adapter_to_bytes(trained)
    assert same_bits(expand(data, received.spec, Adaptation(), received), trained)


@pytest.mark.parametrize("kind", KINDS)
@given(pair=moved(), rank=st.integers(0, 5))
def test_whole_factors_come_back_and_the_other_is_the_one_received(
    kind: str, pair: tuple[Adapter, Adapter], rank: int
) -> None:
    received, trained = pair
    trained = truncate(trained, rank)  # as self-pruning may have left it
    adaptation = Adaptation(**KINDS[kind])
    data = contract(trained, adaptation, received)
    expected = kept_of(
        trained, received, lora_A=adaptation.trained != "lora_B", lora_B=kind not in ("lora_A", "private")
    )
    assert same_bits(expand(data, received.spec, adaptation, received), expected)
    assert len(data) <= max_partial_bytes(received.spec)


@given(pair=moved(), count=st.integers(0, 12), trained=st.sampled_from(["both", "lora_A", "lora_B"]))
def test_selected_ranks_come_back_and_the_others_are_as_received(
    pair: tuple[Adapter, Adapter], count: int, trained: Any
) -> None:
    received, after = pair
    after = kept_of(after, received, lora_A=trained != "lora_B", lora_B=trained != "lora_A")
    adaptation = Adaptation(trained=trained, selected_ranks=count)
    data = contract(after, adaptation, received)
    got = expand(data, received.spec, adaptation, received)
    chosen = moved_most(after, received, count)
    assert sum(map(len, chosen.values())) == min(count, sum(received.ranks.values()))
    for name, own in got.factors.items():
        took = np.isin(np.arange(own.rank), chosen[name])
        before, now = received.factors[name], after.factors[name]
        assert (own.lora_A == np.where(took[:, None], now.lora_A, before.lora_A)).all()
        assert (own.lora_B == np.where(took, now.lora_B, before.lora_B)).all()
    assert len(data) <= max_partial_bytes(received.spec)


@given(pair=moved(), density=st.floats(0.01, 0.99), private=st.booleans())
def test_sparse_change_holds_the_largest_entries(
    pair: tuple[Adapter, Adapter], density: float, private: bool
) -> None:
    received, trained = pair
    adaptation = Adaptation(upload_density=density, private_lora_B=private)
    got = expand(contract(trained, adaptation, received), received.spec, adaptation, received)
    trained = kept_of(trained, received, lora_B=not private)
    changes, left = [], []
    for key, tensor in to_tensors(trained).items():
        if private and "lora_B" in key:
            continue
        before, now = to_tensors(received)[key], to_tensors(got)[key]
        assert ((now == before) | (now == tensor)).all()
        changes.append(np.abs(now - before).ravel())
        left.append(np.abs(tensor - now).ravel())
    moves, missed = np.concatenate(changes), np.concatenate(left)
    assert np.count_nonzero(moves) <= kept_entries(density, moves.size)
    if missed.any():  # what was left out is no larger than what came
        assert np.count_nonzero(moves) == kept_entries(density, moves.size)
        assert missed.max() <= moves[moves > 0].min()


@given(adapters(equal_ranks=True))
def test_cores_come_back_and_make_an_adapter(received: Adapter) -> None:
    rank = received.rank
    core = np.arange(rank * rank, dtype=np.float32).reshape(rank, rank)
    cores = {name: core + number for number, name in enumerate(received.factors)}
    data = contract(received, Adaptation(trained="core"), received, cores)
    read = cores_from_bytes(data, received.spec, rank)
    assert all((read[name] == cores[name]).all() for name in cores)
    got = expand(data, received.spec, Adaptation(trained="core"), received)
    for name, own in received.factors.items():
        assert (got.factors[name].lora_A == own.lora_A).all()
        assert (got.factors[name].lora_B == own.lora_B @ cores[name]).all()


@given(adapters(), st.floats(0.01, 1.0))
def test_sparse_adapter_is_its_largest_entries_over_zero(adapter: Adapter, density: float) -> None:
    data = tensors_to_bytes(sparse_tensors(adapter, density))
    read = sent_from_bytes(data, adapter.spec).adapter
    assert read.ranks == adapter.ranks
    whole, part = (
        np.concatenate([tensor.ravel() for tensor in to_tensors(own).values()]) for own in (adapter, read)
    )
    assert ((part == whole) | (part == 0)).all()
    kept = kept_entries(density, whole.size)
    assert np.count_nonzero(part) == min(kept, np.count_nonzero(whole))
    assert np.abs(part).sum() == np.sort(np.abs(whole))[::-1][:kept].sum()
    assert len(data) <= max_partial_bytes(adapter.spec)


@given(adapters())
def test_adapter_of_a_plan_is_read_in_its_plain_form_too(adapter: Adapter) -> None:
    sent = sent_from_bytes(adapter_to_bytes(adapter), adapter.spec)
    assert same_bits(sent.adapter, adapter)
    assert sent.cores == {}
    assert tensors_to_bytes(sent_tensors(adapter, {})) == adapter_to_bytes(adapter)


def test_adapter_of_a_plan_brings_its_cores() -> None:
    cores = {"k": np.eye(2, dtype=np.float32), "q": np.full((2, 2), 3, np.float32)}
    sent = sent_from_bytes(tensors_to_bytes(sent_tensors(ones(), cores)), SPEC)
    assert same_bits(sent.adapter, ones())
    assert {name: core.tolist() for name, core in sent.cores.items()} == {
        "k": [[1, 0], [0, 1]],
        "q": [[3, 3], [3, 3]],
    }


def test_frozen_factors_may_pass_the_largest_rank() -> None:
    factors = {
        "k": LoraFactors(np.arange(15).reshape(5, 3), np.ones((2, 5))),
        "q": LoraFactors(np.ones((0, 2)), np.ones((4, 0))),
    }
    read = frozen_from_bytes(tensors_to_bytes(factor_tensors(factors)), SPEC)
    assert {name: own.rank for name, own in read.items()} == {"k": 5, "q": 0}
    assert (read["k"].lora_A == factors["k"].lora_A).all()


def test_only_the_factor_that_is_trained_travels() -> None:
    tensors = load(contract(ones(), Adaptation(trained="lora_B"), ones()))
    assert tensors.keys() == {f"{KEY}k.lora_B.weight", f"{KEY}q.lora_B.weight"}


def test_ranks_are_scored_by_the_move_of_their_part() -> None:
    # b moves by (3, 4) at a = (2, 0, 0): 5 * 2 = 10. In the second rank a moves by (1, 0, 0) at (0, 2): 2.
    before = LoraFactors(np.array([[2, 0, 0], [0, 1, 0]]), np.array([[0, 0], [0, 2]]))
    after = LoraFactors(np.array([[2, 0, 0], [1, 1, 0]]), np.array([[3, 0], [4, 2]]))
    assert part_moves(before, after).tolist() == [10, 2]


def test_move_of_both_factors_is_that_of_their_product() -> None:
    # b a goes from 1 * 1 to 3 * 2: by 5, in one number.
    assert part_moves(LoraFactors([[1]], [[1]]), LoraFactors([[2]], [[3]])).tolist() == [5]  # type: ignore[arg-type]


def test_of_equal_moves_the_first_module_and_rank_are_selected() -> None:
    still, all_moved = ones(), adapter_of(*(2 * t for t in to_tensors(ones()).values()))
    assert [r.tolist() for r in moved_most(still, still, 3).values()] == [[0, 1], [0]]
    # Parts of k: |b'a' - ba| = 3 sqrt(2) sqrt(3); of q: 3 sqrt(4) sqrt(2), which is more.
    assert [r.tolist() for r in moved_most(all_moved, still, 3).values()] == [[0], [0, 1]]


def test_of_equal_entries_the_first_are_kept() -> None:
    tensors = [np.array([[1, -2], [0, 1]], np.float32), np.array([[2, 1]], np.float32)]
    assert [p.tolist() for p in largest_entries(tensors, 4)] == [[0, 1, 3], [0]]
    assert [p.tolist() for p in largest_entries(tensors, 1)] == [[1], []]


@pytest.mark.parametrize(
    ("density", "count", "kept"), [(0.1, 10, 1), (0.1, 30, 3), (0.7, 10, 7), (0.25, 5, 2), (1.0, 7, 7)]
)
def test_share_of_entries_is_rounded_up_from_its_decimal(density: float, count: int, kept: int) -> None:
    assert kept_entries(density, count) == kept


def test_change_at_other_ranks_than_received_cannot_be_sent_in_part() -> None:
    for adaptation in (Adaptation(selected_ranks=1), Adaptation(upload_density=0.5)):
        with pytest.raises(RankOutOfRange, match="ranks of a change"):
            contract(truncate(ones(), 1), adaptation, ones())


@pytest.mark.parametrize("cores", [None, {"somewhere": np.eye(2, dtype=np.float32)}])
def test_update_of_cores_needs_those_of_all_modules(cores: Any) -> None:
    with pytest.raises(SpecMismatch):
        contract(ones(), Adaptation(trained="core"), ones(), cores)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trained": "lora_C"}, "trained"),
        ({"lora_B_rate": 0}, "lora_B_rate"),
        ({"upload_density": 0}, "upload_density"),
        ({"upload_density": 1.01}, "upload_density"),
        ({"selected_ranks": -1}, "selected_ranks"),
        ({"amplification": float("inf")}, "amplification"),
        ({"ranks": (2, 1)}, "ascending"),
        ({"ranks": (1, 1)}, "ascending"),
        ({"trained": "lora_A", "private_lora_B": True}, "private lora_B is trained"),
        ({"selected_ranks": 1, "upload_density": 0.5}, "selected ranks are sent whole"),
        ({"trained": "core", "upload_density": 0.5}, "cores are sent whole"),
        ({"trained": "core", "upload_precision": "int8"}, "cores are sent in float32"),
        ({"error_feedback": True}, "nothing is rounded off"),
        ({"error_feedback": True, "upload_precision": "int8", "upload_density": 0.5}, "sent whole"),
        ({"error_feedback": True, "upload_precision": "int8", "selected_ranks": 1}, "sent whole"),
        ({"upload_precision": "int4"}, "upload_precision"),
    ],
)
def test_adaptation_that_means_nothing_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Adaptation(**fields)
