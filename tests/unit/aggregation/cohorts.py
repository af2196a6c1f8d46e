"""Cohorts for the tests of aggregation: what devices could have made of what a rule hands out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from aggregator_service.aggregation.rule import PLAIN, GlobalState, Handout, Rule, Update, UpdateRef
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import StackedAdapter, groups_of, stacked, unstacked
from aggregator_service.aggregation.tree import Aggregate, aggregate
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, initial_adapter
from hetlora.messages.rules import AnyRule
from hetlora.partial import contract, expand
from hetlora.tensors import adapter_to_bytes

RANK = 4
# Two layers, so that stacks hold two modules, and a module of its own shape.
SPEC = AdapterSpec(
    (
        ModuleSpec("layers.0.key", 6, 5),
        ModuleSpec("layers.0.query", 5, 8),
        ModuleSpec("layers.1.key", 6, 5),
        ModuleSpec("layers.1.query", 5, 8),
        ModuleSpec("out", 9, 6),
    ),
    scaling=2.0,
    max_rank=RANK,
)

Dense = dict[str, np.ndarray]


def initial(seed: int = 0, spec: AdapterSpec = SPEC) -> Adapter:
    """What a run starts from: lora_B is zero."""
    return initial_adapter(spec, spec.max_rank, np.random.default_rng(seed))


def random_adapter(rank: int, seed: int, spec: AdapterSpec = SPEC, scale: float = 1.0) -> Adapter:
    """Standard normal factors, lora_B times `scale`."""
    rng = np.random.default_rng(seed)
    return Adapter(
        spec,
        {
            module.name: LoraFactors(
                rng.standard_normal((rank, module.in_features)),
                scale * rng.standard_normal((module.out_features, rank)),
            )
            for module in spec.modules
        },
    )


def trained(handout: Handout, seed: int, size: float = 0.3, example_count: int = 1) -> Update:
    """What a device could send back: what it trains has moved by normal noise, all else is as received."""
    rng = np.random.default_rng(seed)
    moves, sent = handout.adaptation.trained, unstacked(handout.adapter)
    cores = {
        name: (core + size * rng.standard_normal(core.shape)).astype(np.float32)
        for name, core in handout.cores.items()
    }
    after = handout.adapter.with_values(handout.adapter.values.copy())
    for stack, ranks in zip(after, after.ranks, strict=True):
        held = np.arange(stack.rank) < ranks[:, None]
        if moves in ("both", "lora_A"):
            stack.lora_A[:] += held[:, :, None] * size * rng.standard_normal(stack.lora_A.shape)
        if moves in ("both", "lora_B"):
            stack.lora_B[:] += held[:, None, :] * size * rng.standard_normal(stack.lora_B.shape)
    if handout.adaptation == PLAIN:
        return Update(after, example_count, handout.received)
    return arrived(handout, contract(unstacked(after), handout.adaptation, sent, cores), example_count)


def arrived(handout: Handout, data: bytes, example_count: int) -> Update:
    """The update that the service makes of what a device sent of its adapter."""
    whole = expand(data, handout.adapter.spec, handout.adaptation, unstacked(handout.adapter))
    return Update(stacked(whole), example_count, handout.received, ranks=handout.adaptation.ranks)


def as_sent(handout: Handout, example_count: int = 1) -> Update:
    """What a device sends back that learned nothing."""
    return Update(handout.received, example_count, handout.received, ranks=handout.adaptation.ranks)


def cohort(rule: Rule, ranks: Sequence[int], seed: int, size: float = 0.3) -> list[Update]:
    """One trained update for each of these ranks, with example counts from 1 to 5."""
    return [
        trained(rule.distribute(rank, seed + number), seed + number, size, 1 + (seed + number) % 5)
        for number, rank in enumerate(ranks)
    ]


def merged(rule: Rule, updates: Sequence[Update]) -> Aggregate:
    """The aggregate of updates, named by their contents."""
    refs = [
        UpdateRef(digest(own.adapter), own.example_count, rank=own.adapter.rank, ranks=own.ranks or ())
        for own in updates
    ]
    return aggregate(rule, refs, dict(zip(refs, updates, strict=True)).__getitem__)


def digest(adapter: StackedAdapter) -> str:
    """The SHA-256 of an adapter's bytes on the wire, at the ranks that it has."""
    return hashlib.sha256(adapter_to_bytes(unstacked(adapter))).hexdigest()


def products(adapter: StackedAdapter) -> Dense:
    """B A of each module, dense, in float64."""
    return {
        name: lora_B.astype(float) @ lora_A.astype(float)
        for group, stack in zip(groups_of(adapter.spec), adapter, strict=True)
        for name, lora_A, lora_B in zip(group.names, stack.lora_A, stack.lora_B, strict=True)
    }


def effective(state: GlobalState) -> Dense:
    """What the state adds to each base weight, dense, scaling left out: the adapter, and what is frozen."""
    dense = products(state.adapter)
    if state.frozen is None:
        return dense
    frozen = products(state.frozen)
    return {name: product + frozen[name] for name, product in dense.items()}


def received(handout: Handout) -> Dense:
    """What a handout adds to each base weight."""
    return effective(GlobalState(handout.received, handout.adapter.rank, frozen=handout.frozen))


def mean(denses: Sequence[Dense], weights: Sequence[float]) -> Dense:
    """The weighted mean of dense matrices by module."""
    total = sum(weights)
    pairs = list(zip(denses, weights, strict=True))
    return {name: np.sum([w * dense[name] for dense, w in pairs], axis=0) / total for name in denses[0]}


def cut(dense: Dense, rank: int) -> Dense:
    """The best approximation of each matrix of this rank, by a full SVD."""
    result = {}
    for name, matrix in dense.items():
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        result[name] = (left[:, :rank] * values[:rank]) @ right[:rank]
    return result


def assert_same(got: Dense, expected: Dense, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` times the largest number of all expected matrices."""
    largest = max(float(np.abs(matrix).max()) for matrix in expected.values()) + 1e-12
    for name, matrix in expected.items():
        np.testing.assert_allclose(got[name], matrix, atol=tolerance * largest, rtol=0, err_msg=name)


def distance(left: Dense, right: Dense) -> float:
    """The Frobenius norm of the difference over all modules."""
    return float(np.sqrt(sum(np.sum((left[name] - right[name]) ** 2) for name in left)))


ranks_of_cohorts = st.lists(st.integers(1, RANK), min_size=1, max_size=12)
seeds = st.integers(0, 2**32 - 100)


def settled(rule_settings: AnyRule, seed: int = 7) -> GlobalState:
    """A state after some training, in which no factor is zero."""
    state = first_state(rule_settings, random_adapter(RANK, seed, scale=0.3))
    for number in range(3):
        rule = open_rule(rule_settings, state)
        state = merged(rule, cohort(rule, [RANK, RANK], seed + 10 * number)).state
    return state


def state_bits(state: GlobalState) -> list[bytes]:
    """All that a state carries on."""
    adapters = [state.adapter] if state.frozen is None else [state.adapter, state.frozen]
    arrays = [adapter.values for adapter in adapters] + [state.tensors[key] for key in sorted(state.tensors)]
    return [array.tobytes() for array in arrays]
